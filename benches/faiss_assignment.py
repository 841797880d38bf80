"""Frames labelled per second by others, on the shapes of `cargo bench --bench kernels nearest`.

    pip install faiss-cpu scikit-learn
    python benches/faiss_assignment.py

768 values, 1000 centroids, 20 000 frames a call, the median of seven calls: faiss-cpu's flat
index, the quantiser of `OPQ16_64,IVF1000_HNSW32,PQ16x4fsr` as mHuBERT-147 uses it, the numpy
path of HuBERT's `dump_km_label.py`, and scikit-learn's MiniBatchKMeans.predict.
"""

import statistics
import time

import faiss
import numpy as np
from sklearn.cluster import MiniBatchKMeans

FRAMES, DIM, UNITS, CALLS = 20_000, 768, 1000, 7


def rate(name, label):
    label()
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        label()
        times.append(time.perf_counter() - start)
    print(f"{name:24} {FRAMES / statistics.median(times):10.0f} frames/s")


def main():
    random = np.random.default_rng(1)
    frames = random.uniform(-1, 1, (FRAMES, DIM)).astype(np.float32)
    centroids = random.uniform(-1, 1, (UNITS, DIM)).astype(np.float32)
    print(f"faiss {faiss.__version__}, {faiss.omp_get_max_threads()} threads")

    flat = faiss.IndexFlatL2(DIM)
    flat.add(centroids)
    rate("faiss flat", lambda: flat.search(frames, 1))

    graph = faiss.IndexHNSWFlat(64, 32)
    graph.hnsw.efSearch = 16
    rotation = faiss.RandomRotationMatrix(DIM, 64)
    rotation.init(1)
    graph.add(rotation.apply(centroids))
    rate("faiss OPQ64 + HNSW32", lambda: graph.search(rotation.apply(frames), 1))

    transposed, norms = centroids.T.copy(), (centroids**2).sum(1)
    # dump_km_label.py labels an utterance at a time: ten seconds.
    utterances = np.split(frames, range(500, FRAMES, 500))

    def numpy_path():
        for x in utterances:
            distances = (x**2).sum(1, keepdims=True) - 2 * np.matmul(x, transposed) + norms
            np.argmin(distances, axis=1)

    rate("numpy, by utterance", numpy_path)

    k_means = MiniBatchKMeans(UNITS, init=centroids, n_init=1, max_iter=1, batch_size=FRAMES)
    k_means.partial_fit(frames)
    rate("MiniBatchKMeans", lambda: k_means.predict(frames))
    rate("MiniBatchKMeans, by utt.", lambda: [k_means.predict(x) for x in utterances])


if __name__ == "__main__":
    main()
