"""Segments images, videos and camera pictures: python -m scripts.predict."""
