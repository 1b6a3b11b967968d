"""Copy the table of a study from runs/ to figures/data: `python figures/publish.py STUDY NAME`.

Losses and scores are computed in single precision, and are stored so. Settings and accuracies keep all their digits.
"""

import sys

from neuronsplit.analysis.files import provenance, read_table, write_table
from neuronsplit.locations import ROOT
from neuronsplit.names import ID_COLUMNS

study, name = sys.argv[1:]
file = ROOT / "runs" / study / "table.parquet"
table = read_table(file)
measured = [column for column in table.select_dtypes("float64") if column not in ID_COLUMNS]
single = [column for column in measured if not column.endswith("_accuracy")]
write_table(
    table.astype(dict.fromkeys(single, "float32")), ROOT / "figures" / "data" / f"{name}.parquet", provenance(file)
)
