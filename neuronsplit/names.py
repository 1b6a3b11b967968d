"""Names that tables, studies and figures share: columns, controls and special values. This module imports nothing."""

CONTROLS = NO_SPLIT, STAY_NARROW = "no-split", "stay-narrow"  # the final or the first width throughout
GREEDY = "greedy"  # a policy that trains every possible split for an epoch and goes on with the best
NO_PARENT = "new"  # in the column split_neuron: a neuron was added that has no parent
RATE_SCHEDULES = "constant", "cosine"  # how the learning rate falls
# What a second twin has of its parent's optimiser state: a share, or nothing. With warm-up it has nothing, and for an
# epoch its learning rate rises from 0.
STATES = "carry", "reset", "warm-up"
NO_GROWTH = "none"  # in the column growth of tables of twins: the networks train on without a split

TABLE_COLUMNS = (  # the first columns of the table of every experiment; further measurements follow
    "policy growth schedule dataset seed epoch hidden parameters split_neuron "
    "train_loss train_accuracy val_loss val_accuracy test_loss test_accuracy"
).split()
ID_COLUMNS = (
    "policy growth schedule dataset optimizer learning_rate width splits epochs batch_size "
    "weight_decay dropout rate_schedule rate_after_split state"
).split()
GROWTH_COLUMNS = "growth schedule rate_after_split state".split()  # of ID_COLUMNS, those without effect on controls
TUNED_COLUMNS = "learning_rate weight_decay dropout rate_schedule rate_after_split".split()  # of ID_COLUMNS
COUNT_COLUMNS = "width splits epochs batch_size".split()
# in labels with their names: "width 10"
NAMED_COLUMNS = [*COUNT_COLUMNS, "learning_rate", "weight_decay", "dropout", "rate_after_split", "state"]

NEURON, DRAW, UNSPLIT = "neuron", "draw", "unsplit"  # rows of a table of all splits
NETWORK_KEYS = "dataset growth optimizer learning_rate width prior_splits epochs_before batch_size seed horizon".split()
SHUFFLE_LOSSES = ["loss_shuffle_0", "loss_shuffle_1"]  # validation losses under two shuffles of the mini-batches

EXPERIMENT = "experiment"  # in the files of a study: the id of the experiment that a row is of
RESULTS_VERSION = 8  # raised when a change to the package changes what an experiment computes
TEXT_COLUMNS = (  # text, even if it looks like "NA" or 1
    "policy growth schedule dataset optimizer rate_schedule state branch_type"
).split()
