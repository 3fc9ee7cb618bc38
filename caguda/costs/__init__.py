"""What an experiment will cost: arithmetic, disk, frames and hours, before anything is started."""
