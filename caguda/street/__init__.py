"""Generated street scenes with the 19 Cityscapes categories: a small substitute for GTA5 and Cityscapes."""

from caguda.street.frames import frame_paths, jobs, render, write_street

__all__ = ["frame_paths", "jobs", "render", "write_street"]
