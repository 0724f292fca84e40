"""The weights of the measuring networks, pinned here so that they are known without torch.

They are what VBench measures generated video with, as its own code fetches them. Hashes and sizes are those that
several public records of these files agree on; OpenAI's are part of the address, MUSIQ's begins its file's name.
"""

from __future__ import annotations

from openuni.assets import Asset, HubFile, Url


def _clip(digest: str, file: str) -> Url:
    return Url(f"https://openaipublic.azureedge.net/clip/models/{digest}/{file}")


DINO = Asset(
    name="dino-vitb16",
    filename="vbench/dino_vitbase16_pretrain.pth",
    license="Apache-2.0",
    sha256="bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e",
    size=343_242_485,
    sources=(Url("https://dl.fbaipublicfiles.com/dino/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth"),),
)
CLIP_B32 = Asset(
    name="clip-vit-b32",
    filename="vbench/ViT-B-32.pt",
    license="MIT",
    sha256="40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    size=353_976_522,
    sources=(_clip("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt"),),
)
CLIP_L14 = Asset(
    name="clip-vit-l14",
    filename="vbench/ViT-L-14.pt",
    license="MIT",
    sha256="b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    size=932_768_134,
    sources=(_clip("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),),
)
LAION_AESTHETIC = Asset(
    name="laion-aesthetic",
    filename="vbench/sa_0_4_vit_l_14_linear.pth",
    license="MIT",
    sha256="2cd4e60f4f24ae3bcd57b847b13c1f3ba27edc28cc1a7f9ce74ee9f421243cba",
    size=4_071,
    sources=(
        Url(
            "https://github.com/LAION-AI/aesthetic-predictor/raw/7e37768a02b0863eac390a702903aaa90ecf938e/sa_0_4_vit_l_14_linear.pth"
        ),
    ),
)
MUSIQ = Asset(
    name="musiq-spaq",
    filename="vbench/musiq_spaq_ckpt-358bb6af.pth",
    license="Apache-2.0 (Google's weights, converted in a project under PolyForm-Noncommercial-1.0.0)",
    sha256="358bb6af275e28ea56821d44fb55c6cb83645db11f394d3ad65b2d149965ab50",
    size=108_610_983,
    sources=(
        Url("https://github.com/chaofengc/IQA-PyTorch/releases/download/v0.1-weights/musiq_spaq_ckpt-358bb6af.pth"),
        HubFile(
            "chaofengc/IQA-PyTorch-Weights",
            "0df2df423c65f6a64209309695f3845727431027",
            "musiq_spaq_ckpt-358bb6af.pth",
        ),
    ),
)
# The authors publish it in an archive of five; this release holds the same file by itself.
RAFT = Asset(
    name="raft-things",
    filename="vbench/raft-things.pth",
    license="BSD-3-Clause",
    sha256="fcfa4125d6418f4de95d84aec20a3c5f4e205101715a79f193243c186ac9a7e1",
    size=21_108_000,
    sources=(Url("https://github.com/sczhou/ProPainter/releases/download/v0.1.0/raft-things.pth"),),
)
# The authors' hub repository is known by a branch only; this release carries their file. Its hash is the one that
# VBench's users record for the authors' file, so another file under this name is an error.
AMT = Asset(
    name="amt-s",
    filename="vbench/amt-s.pth",
    license="CC-BY-NC-4.0",
    sha256="07e7e03405c213fe4405678db9b42d05671e48c56faf6a441b99bb0047d3cf77",
    size=12_038_359,
    sources=(Url("https://github.com/Fannovel16/ComfyUI-Frame-Interpolation/releases/download/models/amt-s.pth"),),
)
# The authors' own address; VBench's copy on a model hub is known by a branch only.
VICLIP = Asset(
    name="viclip-l14",
    filename="vbench/ViClip-InternVid-10M-FLT.pth",
    license="CC-BY-NC-SA-4.0",
    sha256="7a4d6ad6eac6632db3693f4b97f9f8f6445b65b1e139a6fc6686150522238c56",
    size=1_710_545_812,
    sources=(
        Url("https://pjlab-gvm-data.oss-cn-shanghai.aliyuncs.com/internvideo/viclip/ViClip-InternVid-10M-FLT.pth"),
    ),
)

ASSETS = (DINO, CLIP_B32, CLIP_L14, LAION_AESTHETIC, MUSIQ, RAFT, AMT, VICLIP)
