"""The compiled world and its cache."""

from pathlib import Path

import numpy as np
import pytest

from positronic.simulator import meshes, robot, scene
from positronic.simulator.tasks import StackCubes


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return scene.cache_path(StackCubes())


def test_a_scene_is_built_once_and_then_read(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = scene.load_model(StackCubes())
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]

    def no_build(task: object) -> None:
        raise AssertionError("built although cached")

    monkeypatch.setattr(scene, "build", no_build)
    read = scene.load_model(StackCubes())
    assert (read.nq, read.nmeshface) == (built.nq, built.nmeshface)
    np.testing.assert_array_equal(read.body_mass, built.body_mass)
    assert read.nmeshface < 40_000  # of 192,000


def test_a_damaged_cache_is_built_anew(cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"half a model")
    assert scene.load_model(StackCubes()).nq > 14
    assert cache.stat().st_size > 1_000_000


def test_the_robot_weighs_what_the_original_weighs() -> None:
    import mujoco

    original = mujoco.MjModel.from_xml_path(str(robot.model_path()))
    thinned = robot.load_robot().compile()
    assert thinned.body_mass.sum() == pytest.approx(original.body_mass.sum(), rel=0.01)


def test_clustering_keeps_the_outline() -> None:
    grid = np.linspace(-0.1, 0.1, 41)
    x, y = (axis.reshape(-1) for axis in np.meshgrid(grid, grid))
    vertices = np.stack([x, y, np.sqrt(0.03 - x**2 - y**2)], axis=1)
    index = np.arange(41 * 41).reshape(41, 41)
    a, b = index[:-1, :-1].reshape(-1), index[:-1, 1:].reshape(-1)
    c, d = index[1:, :-1].reshape(-1), index[1:, 1:].reshape(-1)
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    thin_vertices, thin_faces = meshes.cluster(vertices, faces, 0.02)
    assert len(thin_faces) < len(faces) / 8
    assert thin_faces.max() == len(thin_vertices) - 1
    np.testing.assert_allclose(np.ptp(thin_vertices, axis=0), np.ptp(vertices, axis=0), atol=0.02)
    on_sphere = np.linalg.norm(thin_vertices, axis=1)
    np.testing.assert_allclose(on_sphere, np.sqrt(0.03), atol=2e-3)


def test_meshes_of_both_kinds_are_read(tmp_path: Path) -> None:
    (tmp_path / "quad.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1/1 2/2 3/3 4/4\n")
    vertices, faces = meshes.read_mesh(tmp_path / "quad.obj")
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]

    record = np.zeros(1, dtype="<f4, (3,3)<f4, <u2".replace("<f4, (", "(3,)<f4, ("))
    record["f1"][0] = vertices[:3]
    (tmp_path / "one.stl").write_bytes(bytes(80) + (1).to_bytes(4, "little") + record.tobytes())
    vertices, faces = meshes.read_mesh(tmp_path / "one.stl")
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert faces.tolist() == [[0, 1, 2]]
