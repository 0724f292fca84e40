"""Procedural scenes: a graph of meshes that move before a camera (`graph`), and seeded families of them."""

from unibench.camera import Camera
from unibench.scenes.graph import Instance, Light, Scene, Skin
from unibench.state import Contact, State

__all__ = ["Camera", "Contact", "Instance", "Light", "Scene", "Skin", "State"]
