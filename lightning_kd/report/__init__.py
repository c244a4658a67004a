"""Reports as one HTML file that needs nothing else; the extra ``report`` installs what draws them."""

from lightning_kd.report.page import Picture, Report, Section, Table, write_report

__all__ = ["Picture", "Report", "Section", "Table", "write_report"]
