"""Builds pretraining records from raw text; can also learn the vocabulary.

  bert-keras prepare --input=corpus.txt --vocab_size=8000 --output=rec
  bert-keras prepare --input='wiki/*.jsonl.zst,books' --output=rec \\
      --vocab=vocab.txt --seq_length=512 --sentence_objective=sop

Input is plain text or JSON lines with a field `text`, optionally compressed
(.gz, .zst), or Parquet with a column `text`: files, folders or globs, separated
by commas. `--text_field` names another field or column. Plain text has a blank
line between documents and one sentence per line, or paragraphs, which are split
into sentences. Exact duplicates of earlier documents are skipped.

`--format=google` writes Google's TFRecord files, whose masks are fixed. Such
files can also be the input:

  bert-keras prepare --input='old/*.tfrecord' --vocab=vocab.txt \\
      --output=rec

The output depends on the input and the flags only, not on the number of workers
or where they run. A restarted run keeps the shards that are complete.
"""

from bert_keras.training import prepare, settings
from trainers import flags


def main() -> None:
    prepare.run(flags.read(settings.PrepareSettings))


def run() -> None:
    flags.run(main, lambda: flags.define(settings.PrepareSettings))


if __name__ == "__main__":
    run()
