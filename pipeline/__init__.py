"""LLM work as jobs on Kafka. `pipeline.cli` is the program; `pipeline.topology` shows every topic and stage."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("llm-event-pipeline")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0.0.0+checkout"
