"""A local page to try networks on images, short videos and a camera."""
