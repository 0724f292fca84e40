"""Videos that rows name, brought into a folder: paced, resumable, each with an outcome.

`journal` what a video came to · `pace` how often a server is asked · `files` by HTTP · `pages` by yt-dlp · `run` all
"""

from openuni.sources.download.journal import Answer, Outcome
from openuni.sources.download.run import DownloadConfig, DownloadSummary, download

__all__ = ["Answer", "DownloadConfig", "DownloadSummary", "Outcome", "download"]
