"""A baked human body with DensePose-like parts and charts, its pose and its picture."""

from openuni.body.body import COCO_17, LAYOUT, PARTS, Body
from openuni.body.raster import Surface, rasterise

__all__ = ["COCO_17", "LAYOUT", "PARTS", "Body", "Surface", "rasterise"]
