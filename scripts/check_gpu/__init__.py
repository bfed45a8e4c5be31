"""Does this GPU work with the project, and how fast is it? See docs/gpu.md."""
