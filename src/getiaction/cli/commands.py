"""Names and help of the program and its commands."""

import os

TRACEBACK_VARIABLE = "GETIACTION_TRACEBACK"
PROG = "getiaction"
COMMANDS = {
    "fit": "train a policy on a dataset",
    "validate": "compute the held-out loss and roll the policy out in val_gyms",
    "test": "roll the policy out in test_gyms",
    "predict": "predict action chunks for a dataset",
}
HELP = f"""\
usage: {PROG} COMMAND --config FILE.yaml [--KEY VALUE ...]

LeRobot's policies under Lightning.

commands:
{"".join(f"  {name:<10} {text}{os.linesep}" for name, text in COMMANDS.items())}
  {PROG} COMMAND --help                    every option of a command
  {PROG} COMMAND --model.help ACT          the options of a policy, here ACT
  {PROG} COMMAND --config X --print_config the effective configuration, with all defaults
  {PROG} --print_completion bash           a completion script; or zsh, fish, tcsh, powershell
  {PROG} --version

example:
  {PROG} fit --config configs/lerobot_act.yaml --model.init_args.dim_model 1024

{TRACEBACK_VARIABLE}=1 shows where in the code an error came from.
"""
