"""What the evaluation database holds: the tables of 2021, and three of ours beside them.

Every field's meaning is its column's comment; :func:`schema` lists them, and the book prints the
list.
"""
import pandas as pd
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    select,
)

metadata = MetaData()


def _trials(name, comment, engine=''):
    return Table(
        name, metadata,
        Column('id', Integer, primary_key=True, comment='number of the row, in order of arrival'),
        Column('black_agent', ForeignKey('agents.id'), comment=f'who played Black{engine}'),
        Column('white_agent', ForeignKey('agents.id'), comment=f'who played White{engine}'),
        Column('black_wins', Integer, comment='games that Black won'),
        Column('white_wins', Integer, comment='games that White won'),
        Column('moves', Integer, comment='moves played, all games together'),
        Column('times', Float, comment='seconds that the games took, all together'),
        Index(f'{name}_by_pair', 'black_agent', 'white_agent'),
        comment=comment)


runs = Table(
    'runs', metadata,
    Column('run', Text, primary_key=True, comment='name of the training run'),
    Column('description', Text, comment="what the run was for; 'bee/<boardsize>' in the paper"),
    Column('boardsize', Integer, comment='cells along an edge of the board'),
    Column('width', Integer, comment='neurons in a layer of the network'),
    Column('depth', Integer, comment='residual layers of the network'),
    Column('nodes', Integer, comment='nodes of each search in training'),
    comment='training runs')

snaps = Table(
    'snaps', metadata,
    Column('id', Integer, primary_key=True, comment='number of the snapshot'),
    Column('run', ForeignKey('runs.run'), comment='the run that it is of'),
    Column('idx', Integer, comment='place in the schedule of the run, from 0'),
    Column('samples', Float, comment='positions searched in training so far'),
    Column('flops', Float, comment='training compute so far: multiply-adds of the forward passes'),
    UniqueConstraint('run', 'idx'),
    comment='snapshots of the runs')

agents = Table(
    'agents', metadata,
    Column('id', Integer, primary_key=True, comment='number of the agent'),
    Column('snap', ForeignKey('snaps.id'), comment='the snapshot whose network it plays with'),
    Column('nodes', Integer, comment='nodes of its search in play'),
    Column('c', Float, comment='c_puct of its search in play'),
    UniqueConstraint('snap', 'nodes', 'c'),
    comment='players: a snapshot with a search')

trials = _trials('trials', 'games between two agents, both colours fixed; a pair has many rows')
mohex_trials = _trials('mohex_trials', 'games between an agent and the engine MoHex',
                       '; empty for MoHex')

noise_scales = Table(
    'noise_scales', metadata,
    Column('id', Integer, primary_key=True, comment='number of the row'),
    Column('agent_id', ForeignKey('agents.id'), comment='whose gradient it is'),
    Column('kind', Text, comment="'policy', 'value' or 'joint': the loss whose gradient it is"),
    Column('mean_sq', Float,
           comment='squared mean of the gradient over batches, averaged over parameters'),
    Column('sq_mean', Float,
           comment='mean of the squared gradient over batches, averaged over parameters'),
    Column('variance', Float, comment='variance of the gradient over batches'),
    Column('n_params', Float, comment='parameters of the network'),
    Column('batch_size', Float, comment='positions in a batch'),
    Column('batches', Float, comment='batches measured'),
    comment='how noisy the gradients of agents are')

run_details = Table(
    'run_details', metadata,
    Column('run', ForeignKey('runs.run'), primary_key=True, comment='the run'),
    Column('params', Text, comment='all its settings, as JSON'),
    Column('seed', BigInteger, comment='seed of all its random numbers'),
    Column('version', Text, comment='version or commit of boardlaw that trained it'),
    Column('machine', Text, comment='kind of machine, without its name'),
    comment='where a run of this package comes from (not in 2021)')

snap_details = Table(
    'snap_details', metadata,
    Column('snap', ForeignKey('snaps.id'), primary_key=True, comment='the snapshot'),
    Column('seconds', Float, comment='wall time of the training so far'),
    Column('cpu_seconds', Float, comment='processor time of the training so far, all cores'),
    comment='what a snapshot of this package took to train (not in 2021)')

trial_details = Table(
    'trial_details', metadata,
    Column('trial', ForeignKey('trials.id'), primary_key=True, comment='the row of trials'),
    Column('seed', BigInteger, comment='seed of the games'),
    Column('rule', Text, comment="rules of lambda that the two searched by, 'black/white'"),
    Column('noise_eps', Float, comment='share of Dirichlet noise at the root, 0 in evaluation'),
    Column('sampled', Integer, comment='1 if moves were sampled from the policy, 0 if argmax'),
    Column('study', Text, comment="'top' (the best agent's games), 'rules' (of the two rules for "
                                  "lambda) or 'mirror' (an agent with itself): not for the "
                                  "ratings of the pool"),
    comment='how the games of a row were played (not in 2021)')

#: An agent with its snapshot and run, by the definition of 2021. A database has it as the view
#: agents_details, for people; the queries here join the tables themselves, so that they neither
#: need nor trust a view that comes with a file.
agents_details = select(
    agents.c.id, agents.c.nodes.label('test_nodes'), agents.c.c.label('test_c'),
    snaps.c.id.label('snap_id'), snaps.c.samples, snaps.c.flops.label('train_flops'), snaps.c.idx,
    runs.c.run, runs.c.description, runs.c.boardsize, runs.c.width, runs.c.depth,
    runs.c.nodes.label('train_nodes'),
).select_from(agents.join(snaps, agents.c.snap == snaps.c.id).join(runs, snaps.c.run == runs.c.run))

VIEW = f'create view agents_details as {agents_details}'

#: The tables that a database has to have to be read here.
NEEDED = {table.name for table in (runs, snaps, agents, trials)}


def schema():
    """Every table and field with its type and meaning: a DataFrame, one row a field.

    The view agents_details comes last. What a whole table is for is the comment of
    ``tables.metadata.tables[name]``.
    """
    rows = [(table.name, column.name, str(column.type).lower(), column.comment)
            for table in metadata.sorted_tables for column in table.columns]
    for field in agents_details.selected_columns:
        column = getattr(field, 'element', field)    # a label's is the column under it
        rows.append(('agents_details', field.name, str(column.type).lower(), column.comment))
    return pd.DataFrame(rows, columns=['table', 'field', 'type', 'meaning']).set_index(
        ['table', 'field'])
