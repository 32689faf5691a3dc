"""Turns raw text into records for pretraining; learns a vocabulary if asked.

  python -m trainers.prepare --input=corpus.txt --vocab_size=8000 --output=rec
  python -m trainers.prepare --input='wiki/*.jsonl.zst,books' --output=rec \\
      --vocab=vocab.txt --seq_length=512 --sentence_objective=sop

Input is text or JSON lines with a field `text`, each also packed (.gz, .zst):
files, folders or globs, with commas between. Plain text has one sentence per
line and a blank line between documents, or paragraphs, which are split into
sentences here. A document that came before, word for word, is left out.

`--format=google` writes Google's TFRecord files, whose masks are drawn once.
Such files are read as well:

  python -m trainers.prepare --input='old/*.tfrecord' --vocab=vocab.txt \\
      --output=rec

The output depends on the input and the flags, not on the number of workers or
where they run. Killed and run again, it keeps the shards that are whole.
"""

from bert_keras.training import prepare, settings
from trainers import flags


def main() -> None:
    prepare.run(flags.read(settings.PrepareSettings))


if __name__ == "__main__":
    flags.run(main, lambda: flags.define(settings.PrepareSettings))
