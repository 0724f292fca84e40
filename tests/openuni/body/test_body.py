"""The baked body: its tables are sound, its skinning is that of the formula, its charts point where they should."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from openuni.body import COCO_17, Body
from openuni.errors import OpenUniError


@pytest.fixture(scope="module")
def body() -> Body:
    return Body.load()


def chart_points(body: Body, part: int) -> tuple[np.ndarray, np.ndarray]:
    """Rest positions and (U, V) of all corners of a part."""
    mine = body.part_of_face == part
    return body.vertices[body.faces[mine]].reshape(-1, 3), body.uv[body.corners[mine]].reshape(-1, 2)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


def test_tables_are_consistent(body: Body) -> None:
    assert body.faces.min() == 0
    assert body.faces.max() == len(body.vertices) - 1
    assert set(body.part_of_face) == set(range(1, 25))
    assert body.uv.min() >= 0
    assert body.uv.max() <= 1
    np.testing.assert_allclose(body.skinning.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(body.landmark_regressor.sum(1), 1, atol=1e-12)
    assert all(parent < j for j, parent in enumerate(body.parents))
    assert body.joint_regressor.shape == (len(COCO_17), len(body.vertices))


def test_the_mesh_is_an_adult_standing_on_the_ground(body: Body) -> None:
    assert abs(body.vertices[:, 1].min()) < 0.01
    assert abs(np.ptp(body.vertices[:, 1]) - 1.7) < 0.02
    landmark = dict(zip(body.landmark_names, body.landmark_regressor @ body.vertices, strict=True))
    assert landmark["left_hip"][0] > 0 > landmark["right_hip"][0]
    assert landmark["nose"][2] > landmark["left_ear"][2]
    assert landmark["left_foot_index"][2] > landmark["left_heel"][2]


def test_faces_look_outwards(body: Body) -> None:
    corners = body.vertices[body.faces]
    volume = np.einsum("fa,fa->f", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])).sum() / 6
    assert 0.03 < volume < 0.15  # m³, positive: counter-clockwise from outside


def test_the_identity_is_the_rest_pose_and_shape_moves_vertices_and_joints_alike(body: Body) -> None:
    still = np.tile(np.eye(3), (2, len(body.joints), 1, 1))
    shape = np.linspace(-1.5, 1.5, len(body.components))
    vertices, joints = body.rest(shape)
    translation = np.array([[1.0, 2, 3], [4, 5, 6]])
    np.testing.assert_allclose(body.pose(still, shape, translation), vertices + translation[:, None], atol=1e-12)
    np.testing.assert_allclose(body.place(still, joints)[1], [joints, joints], atol=1e-12)


def test_skinning_equals_a_plain_loop_over_joints_and_homogeneous_matrices(body: Body) -> None:
    rotations = Rotation.random(len(body.joints), random_state=3).as_matrix()
    matrices: list[np.ndarray] = []
    for j, parent in enumerate(body.parents):
        local = np.eye(4)
        local[:3, :3] = rotations[j]
        to_joint, back = np.eye(4), np.eye(4)
        to_joint[:3, 3], back[:3, 3] = body.joints[j], -body.joints[j]
        matrices.append((matrices[parent] if parent >= 0 else np.eye(4)) @ to_joint @ local @ back)
    chosen = np.random.default_rng(0).integers(0, len(body.vertices), 50)
    posed = body.pose(rotations[None])[0]
    for v in chosen:
        blend = sum(w * m for w, m in zip(body.skinning[v], matrices, strict=True))
        np.testing.assert_allclose(posed[v], (blend @ [*body.vertices[v], 1])[:3], atol=1e-10)


def test_a_rigid_turn_keeps_every_distance(body: Body) -> None:
    rotations = np.tile(np.eye(3), (1, len(body.joints), 1, 1))
    rotations[0, 0] = Rotation.from_euler("xyz", [0.3, -1.1, 0.7]).as_matrix()
    posed = body.pose(rotations)[0]
    pelvis = body.joints[0]
    np.testing.assert_allclose(posed, (body.vertices - pelvis) @ rotations[0, 0].T + pelvis, atol=1e-10)


def test_bending_the_left_elbow_moves_the_left_hand_only(body: Body) -> None:
    rotations = np.tile(np.eye(3), (1, len(body.joints), 1, 1))
    rotations[0, body.joint("left_forearm")] = Rotation.from_euler("y", -1.0).as_matrix()
    moved = np.linalg.norm(body.pose(rotations)[0] - body.vertices, axis=1)
    assert moved[body.faces[body.part_of_face == 4]].min() > 0.05
    assert moved[body.faces[body.part_of_face == 3]].max() < 1e-9


def test_left_and_right_parts_mirror_each_other(body: Body) -> None:
    # Parts 3, 4 … are hands, feet, limbs and head halves; number by number, right first for hands, thighs, shins, head.
    for right, left in (
        (3, 4),
        (6, 5),
        (7, 8),
        (9, 10),
        (11, 12),
        (13, 14),
        (16, 15),
        (18, 17),
        (20, 19),
        (22, 21),
        (23, 24),
    ):
        a, b = chart_points(body, right)[0], chart_points(body, left)[0]
        assert a[:, 0].mean() < 0 < b[:, 0].mean()
        np.testing.assert_allclose(a.mean(0) * [-1, 1, 1], b.mean(0), atol=0.01)


@pytest.mark.parametrize(
    ("part", "u_axis", "v_axis"),
    [
        # DensePose's published charts, along the body's axes x (left), y (up), z (forward); None: no axis.
        (1, (0, -1, 0), (-1, 0, 0)),  # trunk: U from neck to hips, V from its left to its right
        (2, (0, -1, 0), (-1, 0, 0)),
        (5, (0, 0, 1), None),  # left foot: U from heel to toes; right: the other way
        (6, (0, 0, -1), None),
        (7, (0, -1, 0), (-1, 0, 0)),  # back of the right thigh: down, from inside out
        (8, (0, -1, 0), (1, 0, 0)),
        (9, (0, 1, 0), (1, 0, 0)),  # front of the right thigh: up, from outside in
        (10, (0, 1, 0), (-1, 0, 0)),
        (11, (0, 1, 0), (-1, 0, 0)),  # back of the right shin: up, from inside out
        (12, (0, 1, 0), (1, 0, 0)),
        (13, (0, -1, 0), (-1, 0, 0)),
        (14, (0, -1, 0), (1, 0, 0)),
        (15, (1, -1, 0), (1, 1, 0)),  # fore side of the left upper arm: shoulder to elbow, from the armpit up
        (16, (-1, -1, 0), (-1, 1, 0)),
        (17, (1, -1, 0), (1, 1, 0)),
        (18, (-1, -1, 0), (-1, 1, 0)),
        (19, (-1, 1, -1), None),  # thumb side of the left forearm: hand to elbow
        (20, (1, 1, -1), None),
        (21, (1, -1, 1), None),
        (22, (-1, -1, 1), None),
        (23, None, (0, 1, 0)),  # head: V from neck to crown
        (24, None, (0, 1, 0)),
        (24, (0, 0, -1), None),  # left half: U from nose to back
        (23, (0, 0, 1), None),
    ],
)
def test_charts_run_as_denseposes_do(
    body: Body, part: int, u_axis: tuple[int, ...] | None, v_axis: tuple[int, ...] | None
) -> None:
    points, uv = chart_points(body, part)
    if u_axis is not None:
        assert correlation(points @ u_axis, uv[:, 0]) > 0.8
    if v_axis is not None:
        straight = points - points.mean(0)
        straight -= np.outer(
            uv[:, 0] - uv[:, 0].mean(), np.linalg.lstsq(uv[:, :1] - uv[:, 0].mean(), straight, rcond=None)[0]
        )
        assert correlation(straight @ v_axis, uv[:, 1]) > 0.6


def test_charts_meet_their_neighbours_where_denseposes_do(body: Body) -> None:
    """Mean (U, V) of the seam from one part to another, against the table that DensePose publishes (UV_Processed)."""
    at: dict[int, dict[int, np.ndarray]] = {}
    for face, corner, part in zip(body.faces, body.corners, body.part_of_face, strict=True):
        for vertex, row in zip(face, corner, strict=True):
            at.setdefault(vertex, {})[part] = body.uv[row]

    def seam(a: int, b: int) -> np.ndarray:
        return np.mean([charts[a] for charts in at.values() if a in charts and b in charts], axis=0)

    published = {
        (1, 17): (0.25, 0.06), (1, 18): (0.24, 0.92), (2, 15): (0.17, 0.14), (2, 16): (0.20, 0.87),
        (2, 24): (0.05, 0.44), (2, 23): (0.06, 0.58), (1, 8): (1.00, 0.28), (2, 10): (0.85, 0.24),
        (8, 1): (0.06, 0.74), (8, 12): (0.97, 0.57), (10, 14): (0.07, 0.36), (12, 5): (0.01, 0.43),
        (12, 8): (0.99, 0.42), (14, 10): (0.01, 0.47), (14, 5): (0.99, 0.47), (15, 19): (0.96, 0.49),
        (17, 21): (0.93, 0.40), (19, 4): (0.05, 0.38), (19, 15): (0.96, 0.46), (21, 17): (0.03, 0.47),
        (21, 4): (0.96, 0.41), (4, 19): (0.50, 0.16), (4, 21): (0.63, 0.15), (5, 14): (0.30, 0.55),
        (5, 12): (0.16, 0.50), (24, 2): (0.31, 0.01), (24, 1): (0.80, 0.07),
    }  # fmt: skip
    error = np.array([np.abs(seam(*pair) - uv) for pair, uv in published.items()])
    assert error.mean() < 0.1
    assert np.quantile(error, 0.9) < 0.25


def test_a_file_that_is_no_body_is_refused(tmp_path) -> None:
    path = tmp_path / "body.npz"
    np.savez(path, vertices=np.zeros((3, 3)))
    with pytest.raises(OpenUniError, match="not a baked body"):
        Body.load(path)


@pytest.mark.parametrize(
    ("part", "mirrored", "u_turns", "v_turns"),
    [
        *((p, p, False, True) for p in (1, 2)),  # trunk: V runs from its left to its right
        *((a, b, True, False) for a, b in ((4, 3), (5, 6), (24, 23))),  # hands, feet, head
        *(
            (a, b, False, False)
            for a, b in ((8, 7), (10, 9), (12, 11), (14, 13), (15, 16), (17, 18), (19, 20), (21, 22))
        ),
    ],
)
def test_a_mirror_turns_v_of_the_trunk_and_u_of_hands_feet_and_head(
    body: Body, part: int, mirrored: int, u_turns: bool, v_turns: bool
) -> None:
    """What flipping a picture must do to U and V; limbs keep theirs."""
    points, uv = chart_points(body, part)
    others, theirs = chart_points(body, mirrored)
    nearest = cKDTree(others).query(points * [-1, 1, 1])[1]
    expected = np.where([u_turns, v_turns], 1 - theirs[nearest], theirs[nearest])
    assert np.abs(uv - expected).mean() < 0.05
