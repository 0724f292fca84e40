"""The DensePose program behind the expert: a TorchScript module of the published signature whose answers are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torchvision")

from openuni import experts  # noqa: E402
from openuni.errors import AssetError, OpenUniError  # noqa: E402
from openuni.experts import densepose_torchscript as densepose  # noqa: E402
from openuni.experts import sets  # noqa: E402
from openuni.experts.base import DecodedClip  # noqa: E402
from openuni.modalities.densepose import DensePoseModality  # noqa: E402
from openuni.sample import Annotation  # noqa: E402
from tests.openuni.experts.published import serve  # noqa: E402
from tests.openuni.experts.test_dwpose import tracked  # noqa: E402

TORSO, HEAD = 2, 23


class Program(torch.nn.Module):
    """Two people with the head in the upper quarter and the torso below; U runs to the right, V downwards.

    The background is a border of an eighth of the box. Nobody is in a picture without light. `boxes`: in a frame of
    `size` (height, width), whatever size the program is shown it in; without, in what it is shown.
    """

    def __init__(self, boxes: list[list[float]], size: tuple[int, int] = (0, 0)) -> None:
        super().__init__()
        side = 64
        ramp = (torch.arange(side) + 0.5) / side
        fine = torch.zeros(25, side, side)
        fine[23, :16], fine[2, 16:] = 5.0, 5.0
        coarse = torch.zeros(2, side, side)
        coarse[1, 8:-8, 8:-8], coarse[0] = 2.0, 1.0
        self.height, self.width = size
        self.register_buffer("boxes", torch.tensor(boxes))
        self.register_buffer("coarse", coarse)
        self.register_buffer("fine", fine)
        self.register_buffer("u", ramp[None, None, :].repeat(25, side, 1))
        self.register_buffer("v", ramp[None, :, None].repeat(25, 1, side))

    def forward(
        self, image: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        assert image.dtype == torch.uint8 and image.size(0) == 3  # noqa: PT018
        n = self.boxes.size(0) if bool(image.any()) else 0
        many = [n, 1, 1, 1]
        scale = [image.size(2) / self.width, image.size(1) / self.height] if self.width > 0 else [1.0, 1.0]
        return (
            self.boxes[:n] * torch.tensor(scale + scale, device=image.device),
            self.coarse[None].repeat(many),
            self.fine[None].repeat(many),
            self.u[None].repeat(many),
            self.v[None].repeat(many),
        )


def test_two_who_overlap(served: tuple[Path, str], tmp_path: Path) -> None:
    boxes = [[20.5, 10.5, 84.5, 138.5], [52.5, 10.5, 116.5, 122.5]]
    torch.jit.script(Program(boxes, (144, 208))).save(str(tmp_path / "program"))

    class Pinned(densepose.DensePoseTorchscript):
        assets = (serve(served, densepose.WEIGHTS, tmp_path / "program"),)

    expert = Pinned()
    expert.setup()
    # The detector counts the right one first; in the last frame it sees the left one only, elsewhere a third.
    seen = np.array([boxes[::-1]] * 3, np.float32)
    seen[2, 0] = [180, 20, 200, 60]
    people = tracked(seen, 144, 208)
    people.scores[:, 0], people.scores[:, 1] = 0.95, 0.6
    frames = np.full((3, 144, 208, 3), 99, np.uint8)
    frames[1] = 0
    clip = DecodedClip("two", frames, 16.0, {"rf_detr": Annotation(people)})
    annotation = expert.annotate(clip)
    DensePoseModality().check(annotation.value)
    assert annotation.value.layout == "densepose-24"
    first, dark, last = annotation.value.values
    left, right, both = first[110, 40], first[110, 100], first[90, 70]
    assert tuple(left[[0, 3]]) == (TORSO, 2)
    assert tuple(right[[0, 3]]) == (0, 0)  # below the right one's border
    assert tuple(first[60, 100][[0, 3]]) == (TORSO, 1)
    assert tuple(both[[0, 3]]) == (TORSO, 2)  # the left one's feet are 16 px lower: in front, though less sure
    assert first[30, 40, 0] == HEAD
    # U and V run from the box's edges: pixel 70 is at 50.5 of 64, pixel 90 at 80.5 of 128.
    np.testing.assert_allclose(both[1:3], [50.5 / 64 * 255, 80.5 / 128 * 255], atol=2)
    assert not dark.any()
    np.testing.assert_allclose(annotation.value.confidence, [[0.95, 0.6], [0, 0], [0, 0.6]])
    assert set(np.unique(last[..., 3])) == {0, 2}
    np.testing.assert_array_equal(annotation.value.values, expert.annotate(clip).value.values)


def test_the_network_is_shown_what_detectron2_shows_it() -> None:
    red = np.zeros((360, 640, 3), np.uint8)
    red[:180, :, 0] = 200
    image = densepose.prepare(red)
    assert image.shape == (3, 750, 1333)
    assert image[:, 100, 500].tolist() == [0, 0, 200]  # BGR
    assert not image[:, 700].any()
    assert image[2, 374:376, 500].tolist() == [148, 52]  # PIL's bilinear filter: 0.26 and 0.74 of the way


def test_the_means_that_a_program_subtracts_tell_the_order_of_its_colours() -> None:
    red = np.full((4, 4, 3), (200, 0, 0), np.uint8)
    means = {"bgr": [103.53, 116.28, 123.675], "rgb": [123.675, 116.28, 103.53]}
    for order, values in means.items():
        inner = torch.nn.Module()
        inner.register_buffer("pixel_mean", torch.tensor(values).view(-1, 1, 1), False)
        program = torch.nn.Sequential(inner)
        assert densepose.takes_rgb(program) == (order == "rgb")
        shown = densepose.prepare(red, rgb=densepose.takes_rgb(program))
        assert shown[order.index("r"), 400, 400] == 200
    assert not densepose.takes_rgb(torch.nn.Module())


def test_a_body_beyond_the_frame_is_cut_off() -> None:
    torch.manual_seed(0)
    program = Program([[-16.0, -32.0, 48.0, 96.0]])
    boxes, *parts = program(torch.ones(3, 4, 4, dtype=torch.uint8))
    frame = np.zeros((50, 40, 4), np.uint8)
    densepose.draw(frame, densepose.decode(boxes[0], *(part[0] for part in parts)), 7)
    assert tuple(frame[0, 0, [0, 3]]) == (TORSO, 7)  # row 32 of 128: the torso begins there
    np.testing.assert_allclose(frame[10, 10, 1:3], [26.5 / 64 * 255, 42.5 / 128 * 255], atol=2)
    away = np.zeros((50, 40, 4), np.uint8)
    densepose.draw(away, (100, 100, np.ones((5, 5, 3), np.uint8)), 1)
    assert not away.any()


def test_a_body_is_as_large_as_the_published_decoding_makes_it() -> None:
    """Of a box's corner and of its sides the fractions are cut off (`make_int_box` of detectron2's converters)."""
    program = Program([[10.6, 5.2, 20.4, 30.9]])
    boxes, *parts = program(torch.ones(3, 4, 4, dtype=torch.uint8))
    x, y, values = densepose.decode(boxes[0], *(part[0] for part in parts))
    assert (x, y, values.shape) == (10, 5, (25, 9, 3))  # not the 10 columns between the cut corners


class Wrong(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float()


def test_other_programs_and_other_files_are_refused(served: tuple[Path, str], tmp_path: Path) -> None:
    torch.jit.script(Wrong()).save(str(tmp_path / "wrong"))
    (tmp_path / "cut").write_bytes((tmp_path / "wrong").read_bytes()[:100])
    for file, said in (("wrong", "does not answer as the published"), ("cut", "is not a TorchScript program")):

        class Other(densepose.DensePoseTorchscript):
            assets = (serve(served, densepose.WEIGHTS, tmp_path / file),)

        with pytest.raises(AssetError, match=said):
            Other().setup()


def test_what_runs_code_needs_trust_and_may_not_be_sold() -> None:
    with pytest.raises(OpenUniError, match=r"densepose_torchscript: .* is a program that is run.*--trust.*body_fit"):
        sets.check_trusted(["paper"], trust=False)
    sets.check_trusted(["paper"], trust=True)
    sets.check_trusted(["paper", "body_fit"], trust=False)
    sets.check_trusted(["light", "production"], trust=False)
    assert experts.get("densepose_torchscript").assets[0].sha256.startswith("4f7260da")
    with pytest.raises(OpenUniError, match="densepose_torchscript: its training data, DensePose-COCO"):
        sets.check_commercial(["densepose_torchscript"])
