"""What a trained flow draws: sampling backbones, their structure statistics, files and figure."""

from equivbench.cli.lazy import CommandEntry

COMMAND = CommandEntry(
    "samples",
    "Backbones sampled from a flow model, and their structure.",
    "equivbench.studies.flow_samples.command:samples",
)
