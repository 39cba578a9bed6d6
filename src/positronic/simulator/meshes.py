"""Read the robot's mesh files, and decimate them by vertex clustering.

The Panda of the ``gym-hil`` wheel has 192,000 visual faces, far more than the rendered images
show; a software rasteriser takes several times longer for them. Vertex clustering (Rossignac and
Borrel, 1993) keeps the outline at the resolution of its grid and takes a few lines.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from positronic.errors import SimulationError

Vertices = NDArray[np.float64]
Faces = NDArray[np.int64]


def read_mesh(path: Path) -> tuple[Vertices, Faces]:
    """Read vertices ``(n, 3)`` and triangles ``(m, 3)`` of a Wavefront OBJ or binary STL file.

    Raises:
        SimulationError: the file is missing or has another format.
    """
    if not path.is_file():
        raise SimulationError(f"mesh {path} is missing; reinstall gym-hil")
    if path.suffix.lower() == ".obj":
        return _read_obj(path)
    if path.suffix.lower() == ".stl":
        return _read_stl(path)
    raise SimulationError(f"mesh {path} has an unknown format; expected .obj or .stl")


def cluster(vertices: Vertices, faces: Faces, cell: float) -> tuple[Vertices, Faces]:
    """Merge all vertices that share a grid cell of edge ``cell`` into their mean.

    Degenerate and duplicate triangles are dropped. A mesh that is small relative to the cell is
    clustered on a finer grid, so that it keeps a volume.
    """
    extent = float(np.ptp(vertices, axis=0).max())
    cell = min(cell, extent / 6)
    keys = np.floor((vertices - vertices.min(axis=0)) / cell).astype(np.int64)
    _, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    count = np.bincount(group).astype(np.float64)
    merged = np.stack([np.bincount(group, vertices[:, i]) / count for i in range(3)], axis=1)

    corners = group[faces]
    a, b, c = corners.T
    corners = corners[(a != b) & (b != c) & (a != c)]
    _, first = np.unique(np.sort(corners, axis=1), axis=0, return_index=True)
    corners = corners[np.sort(first)]
    if len(corners) < 4:
        return vertices, faces
    used, corners = np.unique(corners, return_inverse=True)
    return merged[used], corners.reshape(-1, 3)


def _read_obj(path: Path) -> tuple[Vertices, Faces]:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    for line in path.read_text().splitlines():
        kind, *fields = line.split() or [""]
        if kind == "v":
            vertices.append([float(x) for x in fields[:3]])
        elif kind == "f":
            corner = [int(field.split("/", 1)[0]) - 1 for field in fields]
            faces.extend([corner[0], corner[i], corner[i + 1]] for i in range(1, len(corner) - 1))
    return np.array(vertices), np.array(faces, dtype=np.int64)


def _read_stl(path: Path) -> tuple[Vertices, Faces]:
    # Binary STL: 80 bytes of header, a count, then per triangle a normal, 3 corners, 2 bytes.
    data = path.read_bytes()
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    count = int.from_bytes(data[80:84], "little")
    triangles = np.frombuffer(data, record, count=count, offset=84)["corners"]
    vertices = triangles.reshape(-1, 3).astype(np.float64)
    return vertices, np.arange(len(vertices), dtype=np.int64).reshape(-1, 3)
