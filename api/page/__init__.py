"""The page at `/`: jobs, sweeps and new ones, in a browser."""
