"""Pictures by Mitsuba 3 (path tracing), headless and without a GPU: the look of a photograph for the benchmark.

The truth never comes from here; only `positions` reads Mitsuba's own geometry, to compare the two.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from unibench.formats.srgb import encode_srgb
from unibench.scenes.graph import Instance, Scene

Frames = npt.NDArray[np.uint8]
Singles = npt.NDArray[np.float32]

_SUN = np.radians(0.8)
"""Half the angle of the sun's disc; three times the true one, for shadows that soften with distance as through haze."""
_FAR_AWAY = 500.0
"""Metres to the sphere that plays the sun."""
_OURS_TO_MITSUBA = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Mitsuba's camera looks along +z with y up and x to the left."""


def photograph(scene: Scene, samples: int = 16) -> Frames:
    """RGB `[T, H, W, 3]` uint8 of a scene: sun and sky, soft shadows, light that bounces, `samples` paths a pixel.

    The same scene and variant give the same picture. Filtered by a box one pixel wide, so that pixel centres mean what
    they mean in the truth.
    """
    import pyoidn

    mi = _mitsuba()
    guides = {"type": "aov", "aovs": "albedo:albedo,normal:sh_normal", "img": {"type": "path", "max_depth": 6}}
    # Loaded once and moved: another load would compile the vectorised kernels again.
    world = mi.load_dict({**_describe(mi, scene, 0, guides, samples), **_lights(mi, scene)})
    frames = []
    for t in _in_motion(mi, scene, world):
        image = np.array(mi.render(world, seed=t), np.float32)
        colour, albedo, normal = (np.ascontiguousarray(image[..., k : k + 3]) for k in (0, 3, 6))
        clean = pyoidn.denoise(colour, albedo=albedo, normal=normal, hdr=True)
        frames.append(encode_srgb(_film(np.asarray(clean))))
    return np.stack(frames)


def positions(scene: Scene) -> Singles:
    """World positions `[T, H, W, 3]` of what Mitsuba's own camera meets at pixel centres; NaN where nothing.

    Its depth AOV would not do: it is radial and starts at the near plane.
    """
    mi = _mitsuba()
    world, camera = mi.load_dict(_describe(mi, scene, 0, {"type": "path"}, 1)), scene.camera
    film = (camera.pixels() / [camera.width, camera.height]).astype(np.float32)
    middle = mi.Point2f(0.5, 0.5)
    frames = []
    for _ in _in_motion(mi, scene, world):
        sensor = world.sensors()[0]
        if mi.variant().startswith("scalar"):
            hits = [world.ray_intersect(sensor.sample_ray(0, 0.5, mi.Point2f(*at), middle)[0]) for at in film.tolist()]
            found = np.array([np.array(hit.p) if hit.is_valid() else [np.nan] * 3 for hit in hits])
        else:
            hit = world.ray_intersect(sensor.sample_ray(0, 0.5, mi.Point2f(film.T), middle)[0])
            found = np.where(np.array(hit.is_valid())[:, None], np.array(hit.p).T, np.nan)
        frames.append(found.astype(np.float32).reshape(camera.height, camera.width, 3))
    return np.stack(frames)


def _in_motion(mi: Any, scene: Scene, world: Any) -> Iterator[int]:
    """Each frame's number, once camera and things are where they are in it."""
    moved = mi.traverse(world)
    for t in range(len(scene)):
        moved["sensor.to_world"] = mi.Transform4f((scene.camera.pose[t] @ _OURS_TO_MITSUBA).tolist())
        for n, instance in enumerate(scene.instances):
            if t and instance.vertices.strides[0]:  # a still thing repeats one frame in memory
                moved[f"{_name(n)}.vertex_positions"] = instance.vertices[t].astype(np.float32).ravel()
        moved.update()
        yield t


def _film(linear: Singles) -> Singles:
    """A soft shoulder above .7, so that highlights fade to white as on film rather than clip."""
    over = np.maximum(linear - 0.7, 0)
    return np.asarray(np.minimum(linear, 0.7) + 0.3 * (1 - np.exp(-over / 0.3)), np.float32)


def _describe(mi: Any, scene: Scene, t: int, integrator: dict[str, Any], samples: int) -> dict[str, Any]:
    camera, K = scene.camera, scene.camera.intrinsics[t]
    fov = float(np.degrees(2 * np.arctan(camera.width / 2 / K[0, 0])))
    sensor = {
        "type": "perspective",
        "fov": fov,
        "fov_axis": "x",
        "near_clip": 0.01,
        "far_clip": 1e4,
        "principal_point_offset_x": float(0.5 - K[0, 2] / camera.width),
        "principal_point_offset_y": float(0.5 - K[1, 2] / camera.height),
        "to_world": mi.ScalarTransform4f((camera.pose[t] @ _OURS_TO_MITSUBA).tolist()),
        "film": {
            "type": "hdrfilm",
            "width": camera.width,
            "height": camera.height,
            "rfilter": {"type": "box"},
            "pixel_format": "rgb",
        },
        "sampler": {"type": "independent", "sample_count": samples},
    }
    shapes = {_name(n): _shape(mi, _name(n), i, t) for n, i in enumerate(scene.instances)}
    return {"type": "scene", "integrator": integrator, "sensor": sensor, **shapes}


def _lights(mi: Any, scene: Scene) -> dict[str, Any]:
    """The scene's sun as a far sphere and its sky as a picture, as bright as the shaded pictures take them to be."""
    light = scene.light
    up = np.sin(np.linspace(np.pi / 2, -np.pi / 2, 64))[:, None]
    gradient = light.horizon + (light.sky - light.horizon) * np.sqrt(np.clip(up, 0, 1))
    gradient = np.where(up < 0, light.horizon, gradient) * 0.7
    picture = np.repeat(gradient[:, None], 8, axis=1).astype(np.float32)
    upright = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    radiance = light.sun / np.sin(_SUN) ** 2
    return {
        "sky": {"type": "envmap", "bitmap": mi.Bitmap(picture), "to_world": upright},
        "sun": {
            "type": "sphere",
            "center": (light.direction * _FAR_AWAY).tolist(),
            "radius": float(_FAR_AWAY * np.sin(_SUN)),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": radiance.tolist()}},
        },
    }


def _name(n: int) -> str:
    return f"shape{n:03d}"


def _shape(mi: Any, name: str, instance: Instance, t: int) -> Any:
    bitmap = mi.Bitmap(instance.texture)
    colour = {"type": "bitmap", "bitmap": bitmap, "filter_type": "bilinear", "wrap_mode": "repeat"}
    bsdf = {
        "type": "twosided",
        "inner": {
            "type": "principled",
            "base_color": colour,
            "roughness": 0.35 if instance.thing else 0.7,
            "specular": 0.5,
        },
    }
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(bsdf)
    mesh = mi.Mesh(
        name,
        vertex_count=len(instance.mesh.vertices),
        face_count=len(instance.mesh.faces),
        has_vertex_normals=instance.mesh.smooth,
        has_vertex_texcoords=True,
        props=properties,
    )
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = instance.vertices[t].astype(np.float32).ravel()
    parameters["faces"] = instance.mesh.faces.astype(np.uint32).ravel()
    parameters["vertex_texcoords"] = instance.mesh.uv.astype(np.float32).ravel()
    parameters.update()
    return mesh


@cache
def _mitsuba() -> Any:
    """Mitsuba in its vectorised mode where an LLVM is found that works, else in the scalar mode (4–6 times slower)."""
    library = _working_llvm()
    if library is not None:
        os.environ["DRJIT_LIBLLVM_PATH"] = library
    import drjit
    import mitsuba as mi

    mi.set_variant("scalar_rgb" if library is None else "llvm_ad_rgb")
    # Several threads add up a pixel's paths in whatever order they finish, so that pictures would differ by a grey
    # level on a busy machine; a render runs one process a core anyway.
    drjit.set_thread_count(1)
    return mi


@cache
def _working_llvm() -> str | None:
    """The newest LLVM library that renders a ball in a process of its own: a wrong one does not raise but crashes.

    `DRJIT_LIBLLVM_PATH`, where set, is the only one tried. LLVM 14 to 16 crash on processors with AVX-512.
    """
    given = os.environ.get("DRJIT_LIBLLVM_PATH")
    for library in [given] if given else _llvms():
        environment = {**os.environ, "DRJIT_LIBLLVM_PATH": library}
        trial = subprocess.run([sys.executable, "-c", _TRIAL], env=environment, capture_output=True, check=False)
        if trial.returncode == 0:
            return library
    return None


def _llvms() -> list[str]:
    found = [path for folder in _LIBRARIES for path in Path(folder).glob("libLLVM*.so*") if path.is_file()]
    numbers = {str(path.resolve()): re.findall(r"\d+", path.resolve().name) for path in found}
    return sorted((path for path in numbers if numbers[path]), key=lambda path: -int(numbers[path][0]))


_LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/opt/homebrew/opt/llvm/lib")
_TRIAL = """
import mitsuba as mi
mi.set_variant("llvm_ad_rgb")
ball = {"type": "sphere", "bsdf": {"type": "principled", "roughness": 0.5}}
film = {"type": "hdrfilm", "width": 8, "height": 8}
eye = mi.ScalarTransform4f().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])
sensor = {"type": "perspective", "film": film, "to_world": eye}
sky = {"type": "constant"}
scene = mi.load_dict({"type": "scene", "integrator": {"type": "path"}, "sensor": sensor, "ball": ball, "sky": sky})
assert mi.render(scene, spp=2).array[0] > 0
"""
