import random

from absl.testing import absltest

from bert_keras.data import chunks, corpus


def documents(count, size=20):
    return [
        corpus.Document("a.txt", "sentences", n, n * size, n * size + size, n)
        for n in range(1, count + 1)
    ]


def plan(found, **options):
    return list(chunks.Plan(found, **({"held_out": 0.01} | options)))


class PlanTest(absltest.TestCase):
    def test_every_hundredth_document_is_held_out_across_chunks(self):
        found = documents(320)
        made = {"train": [], "dev": []}
        numbers = {"train": [], "dev": []}
        for chunk in plan(found, chunk_bytes=500):
            self.assertGreater(len(chunk.documents), 1)
            made[chunk.split] += chunk.documents
            numbers[chunk.split].append(chunk.number)
        self.assertLen(made["dev"], 3)
        self.assertCountEqual(made["train"] + made["dev"], found)
        self.assertGreater(len(numbers["train"]), 10)
        for found in numbers.values():
            self.assertEqual(found, list(range(len(found))))

    def test_a_single_held_out_document_goes_back(self):
        (chunk,) = plan(documents(150))
        self.assertEqual(chunk.split, "train")
        self.assertLen(chunk.documents, 150)

    def test_a_repeated_document_is_left_out(self):
        made = chunks.Plan(documents(10) * 2, held_out=0.0)
        (chunk,) = made
        self.assertLen(chunk.documents, 10)
        self.assertEqual((made.documents, made.repeated), (10, 10))
        (chunk,) = plan(documents(10) * 2, deduplicate=False, held_out=0.0)
        self.assertLen(chunk.documents, 20)


class SeenTest(absltest.TestCase):
    def test_nothing_new_is_taken_for_seen(self):
        numbers = random.Random(1)
        seen = chunks.Seen(size=1 << 10)
        digests = [numbers.getrandbits(64) for _ in range(20_000)]
        self.assertTrue(all(map(seen.add, digests)))
        # The newest are still there.
        self.assertFalse(any(map(seen.add, digests[-200:])))

    def test_nearly_all_is_remembered_up_to_half_the_size(self):
        numbers = random.Random(2)
        seen = chunks.Seen(size=1 << 14)
        digests = [numbers.getrandbits(64) for _ in range(1 << 13)]
        for digest in digests:
            seen.add(digest)
        again = sum(map(seen.add, digests))
        self.assertLess(again, 0.1 * len(digests))


if __name__ == "__main__":
    absltest.main()
