"""Preflight check of a dataset and its codec for training, before torch is imported."""

from pathlib import Path

from foundation.documents import Reader
from getiaction.dataset_info import DatasetInfo, Statistics, parse_statistics
from getiaction.roots import require_dataset
from positronic.codec import Codec, Contract, stats_digest
from positronic.errors import ContractError
from positronic.vendors.lerobot.dataset.identity import identity_contract

READER = Reader(error=ContractError, size=1 << 28, mend="convert again", allow_nan=True)
DATASET_CONTRACT = Path("meta/contract.json")


def dataset_contract(root: Path, codec: Codec | None) -> Contract:
    """Return the dataset's contract with its statistics' digest.

    A dataset that no conversion wrote has none: its features as they are, unless ``codec`` is said
    to have made them.

    Raises:
        GetiactionError: there is no dataset at ``root``, or it is empty.
        ContractError: ``codec`` differs from the dataset's, or the statistics are not those of the
            conversion.
    """
    info = require_dataset(root)
    stats = _statistics(root)
    path = root / DATASET_CONTRACT
    if not path.is_file():
        contract = identity_contract(info) if codec is None else Contract.of(codec, fps=info.fps)
    else:
        contract = Contract.load(path)
        if codec is not None:
            given = Contract.of(contract.adopt(codec), fps=contract.fps)
            given.require_same(contract, f"--codec={codec.name}", f"the dataset at {root}")
    if path.is_file() or codec is not None:
        _require_features(contract, info, root)
    digest = stats_digest(stats, contract.features)
    if contract.stats_digest not in (None, digest):
        raise ContractError(
            f"{root}/meta/stats.json is not what the conversion wrote: its digest differs from the "
            "one in meta/contract.json; convert again, or make it anew by `positronic-to-lerobot "
            f"verify --dataset_root={root} --repair=statistics`"
        )
    return contract.with_statistics(stats)


def _statistics(root: Path) -> dict[str, Statistics]:
    path = root / "meta/stats.json"
    try:
        return parse_statistics(READER.read(path), str(path), READER)
    except OSError as error:
        raise ContractError(
            f"{root} has no readable meta/stats.json, without which nothing can be normalised "
            f"({error.strerror}); make it anew by `positronic-to-lerobot verify "
            f"--dataset_root={root} --repair=statistics`"
        ) from error


def _require_features(contract: Contract, info: DatasetInfo, root: Path) -> None:
    for name, feature in contract.features.items():
        here = info.features.get(name)
        if here is None or here.shape != list(feature["shape"]):
            has = "has no such feature" if here is None else f"has it as {here.shape}"
            raise ContractError(
                f"the codec {contract.codec['name']!r} makes {name} of shape "
                f"{list(feature['shape'])}, but the dataset at {root} {has}; use its own codec"
            )
