"""Places to measure on: this machine, and others over SSH or adb."""

from exporters.profiling.devices.device import DEFAULT_TIMEOUT_S, Device, open_device
from exporters.profiling.devices.inventory import read_inventory
from exporters.profiling.devices.settings import DeviceSettings

__all__ = ["DEFAULT_TIMEOUT_S", "Device", "DeviceSettings", "open_device", "read_inventory"]
