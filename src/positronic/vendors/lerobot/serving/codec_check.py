"""Check of the codec that a server was given against a checkpoint's own."""

from positronic.codec import Codec, Contract
from positronic.errors import ContractError


def require_same_codec(contract: Contract, codec: Codec, label: str) -> None:
    """Refuse a codec other than that of the contract of the checkpoint ``label``.

    Raises:
        ContractError: it is another one.
    """
    differences = contract.codec_differences(contract.adopt(codec))
    if not differences:
        return
    trained, asked = contract.codec["name"], codec.name
    if trained == asked:
        what = f"another '{trained}' than that of --codec ({'; '.join(differences[:3])})"
    else:
        what = f"codec '{trained}', not with --codec '{asked}'"
    raise ContractError(
        f"checkpoint {label} was trained with {what};"
        " leave --codec away, the checkpoint knows its own"
    )
