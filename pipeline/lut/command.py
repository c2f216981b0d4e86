"""`handset lut`: latency tables, made, asked, judged, compared and handed to others."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from pipeline.lut import build_command, convert_command, table_command
    from pipeline.validation import command as lut_validate_command

    actions = parser.add_subparsers(required=True, metavar="ACTION")
    build_command.add_arguments(actions.add_parser("build", help="measure a table on a device"))
    table_command.add_query(actions.add_parser("query", help="what a table says of kernels or of a network"))
    lut_validate_command.add_arguments(actions.add_parser("validate", help="its sums against networks it has never seen"))
    table_command.add_diff(actions.add_parser("diff", help="what changed between two tables, and whether it is noise"))
    convert_command.add_export(actions.add_parser("export", help="as CSV, once-for-all's YAML or NetAdapt's tables"))
    convert_command.add_import(actions.add_parser("import", help="from CSV, once-for-all's YAML or NetAdapt's tables"))
