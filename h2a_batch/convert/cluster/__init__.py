"""Conversion on a Ray cluster: the driver, its crew, and the nodes."""

from h2a_batch.convert.cluster.crew import Naming
from h2a_batch.convert.cluster.driver import convert, joined
from h2a_batch.convert.cluster.node import Report

__all__ = ["Naming", "Report", "convert", "joined"]
