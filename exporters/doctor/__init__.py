"""What this machine can export to and run: runtimes, versions, devices, and the command that installs the rest."""

from exporters.doctor.diagnosis import Diagnosis, Finding, diagnose
from exporters.doctor.requirements import Package

__all__ = ["Diagnosis", "Finding", "Package", "diagnose"]
