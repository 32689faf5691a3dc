import random

from absl.testing import absltest, parameterized

from bert_keras.data import corpus, corpus_chunks


def documents(count, size=20):
    return [
        corpus.Document(
            "a.txt", "sentences", n, n * size, n * size + size, n, size
        )
        for n in range(1, count + 1)
    ]


def partition(scanned, **options):
    return list(
        corpus_chunks.Partition(scanned, **({"held_out": 0.01} | options))
    )


class PlanTest(absltest.TestCase):
    def test_every_hundredth_document_is_held_out_across_chunks(self):
        scanned = documents(320)
        by_split = {"train": [], "dev": []}
        numbers = {"train": [], "dev": []}
        for chunk in partition(scanned, chunk_bytes=500):
            self.assertGreater(len(chunk.documents), 1)
            by_split[chunk.split] += chunk.documents
            numbers[chunk.split].append(chunk.number)
        self.assertLen(by_split["dev"], 3)
        self.assertCountEqual(by_split["train"] + by_split["dev"], scanned)
        self.assertGreater(len(numbers["train"]), 10)
        for each in numbers.values():
            self.assertEqual(each, list(range(len(each))))

    def test_a_single_held_out_document_goes_back(self):
        (chunk,) = partition(documents(150))
        self.assertEqual(chunk.split, "train")
        self.assertLen(chunk.documents, 150)

    def test_a_repeated_document_is_left_out(self):
        chunks = corpus_chunks.Partition(documents(10) * 2, held_out=0.0)
        (chunk,) = chunks
        self.assertLen(chunk.documents, 10)
        self.assertEqual(
            (chunks.num_documents, chunks.num_duplicates), (10, 10)
        )
        (chunk,) = partition(documents(10) * 2, deduplicate=False, held_out=0.0)
        self.assertLen(chunk.documents, 20)

    def test_a_second_iteration_counts_nothing_twice(self):
        for deduplicate in (True, False):
            chunks = corpus_chunks.Partition(
                documents(10), held_out=0.0, deduplicate=deduplicate
            )
            self.assertLen(list(chunks), 1)
            self.assertEmpty(list(chunks))
            self.assertEqual(
                (chunks.num_documents, chunks.num_duplicates, chunks.num_bytes),
                (10, 0, 200),
            )


class SeenDigestsTest(parameterized.TestCase):
    def digests(self, count):
        generator = random.Random(count)
        return [generator.getrandbits(64) for _ in range(count)]

    def test_nothing_is_forgotten_up_to_the_size(self):
        digests = self.digests(1 << 18)
        digests_seen = corpus_chunks.SeenDigests(size=1 << 18)
        self.assertEqual(sum(map(digests_seen.add, digests)), len(digests))
        self.assertEqual(sum(map(digests_seen.add, digests)), 0)

    def test_nothing_is_forgotten_while_the_table_grows(self):
        generator, digests_seen, digests = (
            random.Random(3),
            corpus_chunks.SeenDigests(),
            [],
        )
        for digest in self.digests(50_000):
            self.assertTrue(digests_seen.add(digest))
            digests.append(digest)
            self.assertFalse(digests_seen.add(generator.choice(digests)))

    @parameterized.parameters(2, 3, 10, 1 << 10)
    def test_the_newest_half_is_remembered_past_the_size(self, size):
        digests = self.digests(5 * size + 1)
        digests_seen = corpus_chunks.SeenDigests(size=size)
        for number, digest in enumerate(digests):
            self.assertTrue(digests_seen.add(digest))
            for back in range(0, size // 2, 1 + size // 20):
                self.assertFalse(
                    digests_seen.add(digests[max(0, number - back)])
                )
        # And the memory is bounded.
        for table in (digests_seen.newer, digests_seen.older):
            self.assertLessEqual(len(table.entries), 2 * size)
        self.assertTrue(digests_seen.add(digests[0]))

    def test_a_digest_of_zero_is_one_of_them(self):
        digests_seen = corpus_chunks.SeenDigests()
        self.assertEqual(
            [digests_seen.add(0), digests_seen.add(0)], [True, False]
        )


if __name__ == "__main__":
    absltest.main()
