"""Decoding: the K best items of a user, in as few calls of the target as possible.

One round (`speculative`), for L = 4 codes, K = 2 beams, and drafted levels gamma = 2:

    level 0        1          2          3          4 = L: the items

        root --+-- a --+---- a b                         draft      `draft`
               |       +---- a c                         a tree of W_l nodes a level
               +-- d ------- d e
               +-- f
        ---------------------------------------------------------------------------
        one target call reads the prompt and all nodes   verify     `verify`
        ---------------------------------------------------------------------------
        target's       target's    target's              accept     `verify`
        best: a, d     best:       best:                 walk down while each of the
        drafted? yes   a b, d g    (not reached)         K beams was drafted
                       drafted?
                       d g was not: stop. Level 2 is settled, its scores are exact.

The K settled beams, here "a b" and "d g", begin the next round at level 2. A round
settles at least one level, so a user needs at most L rounds, as many as plain beam
search (`beam_search`) makes calls. At best one round does.

The slots of a cache, for a prompt of P tokens and R_l = max(K, W_l):

    slot   0 ... P-1      P ... P+R_1-1     P+R_1 ...        one range per level
          +--------------+-----------------+----------------+-----+-----------------+
          | pad pad t t t| level 1         | level 2        | ... | level L-1       |
          +--------------+-----------------+----------------+-----+-----------------+
                        ^  a   d   f   .     ab  ac  de  .
                        root: the last prompt token

    path of "a b": [slot of root, slot of a, slot of a b]

A node attends to the valid prompt slots and to its path. A beam is a row of ints
(tokens, path, trie node), so reordering beams never moves the cache. A rejected level is
overwritten by a later round, so nothing is rolled back. Rows of a batch stand at
different levels. A row is idle, and writes nothing, at levels shallower than its level.

Where to read on: `speculative` shows the whole algorithm, `selection` the five modes.
ALGORITHM.md section 2 has the slots and rounds, sections 5 and 6 the verification.
"""
