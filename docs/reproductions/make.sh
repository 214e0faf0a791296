#!/bin/sh
# Measures suites of papers (paper-enwik8 and paper-fnet where none is named) and writes their pages beside this file.
# Runs are kept in results/, so that what was interrupted goes on; EFFBENCH says which program.
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- paper-enwik8 paper-fnet
for suite in "$@"; do
    ${EFFBENCH:-effbench} reproduce "$suite" --markdown "docs/reproductions/$suite.md"
done
