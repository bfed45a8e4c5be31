"""From meters in the world of a generated street to pixels.

World coordinates: right (0 = middle of the road), up (0 = the ground), forward (0 = the camera).
"""

import math
from dataclasses import dataclass

import numpy as np

NEAR_M = 1.0
"""How far ahead of the camera the visible world begins."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera above a road that bends as ``right = bend * forward**2``.

    ``focal``, ``center`` and ``horizon`` are in pixels, the other fields in meters.
    """

    focal: float
    center: float
    horizon: float
    height: float
    right: float
    bend: float

    def project(self, points: np.ndarray) -> np.ndarray:
        """(..., 3) meters along the road (right, up, forward) -> (..., 2) pixels (across, down).

        Points behind the near plane are moved onto it.
        """
        points = np.asarray(points, np.float64)
        return self.at(points[..., 0], points[..., 1], points[..., 2])

    def at(self, right: np.ndarray, up: np.ndarray | float, forward: np.ndarray) -> np.ndarray:
        """``project`` with separate coordinates -> (..., 2) pixels.

        ``right`` and ``forward`` have one shape (...); ``up`` has that shape or is a number.
        """
        forward = np.maximum(forward, NEAR_M)
        slope = (right - self.right) / forward + self.bend * forward
        pixels = np.empty((*forward.shape, 2))
        pixels[..., 0] = self.center + self.focal * slope
        pixels[..., 1] = self.horizon + self.focal * (self.height - up) / forward
        return pixels

    def ground(self, across: np.ndarray, down: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of ``project`` on the ground, for pixels below the horizon.

        Returns (right, forward) in meters, of the broadcast shape of the inputs.
        """
        forward = self.focal * self.height / (down - self.horizon)
        slope = (across - self.center) / self.focal - self.bend * forward
        return slope * forward + self.right, forward

    @property
    def ground_top(self) -> int:
        """The first row of pixels, from above, that lies wholly below the horizon."""
        return max(0, math.floor(self.horizon) + 1)


@dataclass(frozen=True)
class Place:
    """Position and heading of an object; a call maps its local meters to pixels.

    ``yaw`` 0 heads away from the camera, pi towards it.
    """

    camera: Camera
    right: float
    forward: float
    yaw: float = 0.0

    def __call__(self, points) -> np.ndarray:
        """(..., 3) local meters (across, up, along) -> (..., 2) pixels (across, down).

        The origin is the position of the object; ``along`` is its heading.
        """
        points = np.asarray(points, np.float64)
        return self.at(points[..., 0], points[..., 1], points[..., 2])

    def at(
        self, across: np.ndarray | float, up: np.ndarray | float, along: np.ndarray
    ) -> np.ndarray:
        """The same with separate coordinates, which broadcast together -> (..., 2) pixels."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return self.camera.at(
            self.right + across * cos + along * sin, up, self.forward - across * sin + along * cos
        )

    def pixels(self, meters: float) -> int:
        """The width in pixels, at least 1, of a line of ``meters`` at this place."""
        return max(1, round(meters * self.camera.focal / max(self.forward, NEAR_M)))
