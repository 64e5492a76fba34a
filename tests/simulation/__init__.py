"""The whole pipeline under the crash simulator."""
