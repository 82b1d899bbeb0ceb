"""Small files in the published layouts of image tasks, and the pickles that Python 2 wrote."""

import numpy as np


def python2(value):
    """The opcodes that Python 2 wrote for a value, in protocol 2: texts are byte strings, and arrays name numpy's old modules."""
    if isinstance(value, dict):
        return b"}(" + b"".join(python2(key) + python2(item) for key, item in value.items()) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, int):
        return b"J" + value.to_bytes(4, "little", signed=True)
    if isinstance(value, str):
        return b"T" + len(value).to_bytes(4, "little") + value.encode("latin1")
    shape = b"".join(python2(size) for size in value.shape)
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"T" + value.size.to_bytes(4, "little") + value.tobytes()
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return empty + b"(K\x01(" + shape + b"t" + dtype + b"\x89" + content + b"tb"


def write(path, content, writer=python2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x80\x02" + writer(content) + b"." if writer is python2 else writer(content))


def images(count, seed=0):
    return np.random.default_rng(seed).integers(256, size=(count, 3072)).astype(np.uint8)


def cifar10(folder, writer=python2):
    place = folder / "cifar-10-batches-py"
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    write(place / "batches.meta", {"label_names": names, "num_vis": 3072}, writer)
    for number, name in enumerate([*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]):
        count = 40 if name == "test_batch" else 90
        content = {"batch_label": name, "labels": [row % 10 for row in range(count)], "data": images(count, number), "filenames": ["a.png"]}
        write(place / name, content, writer)
    return folder


def cifar100(folder):
    place = folder / "cifar-100-python"
    fine, coarse = [f"class{k}" for k in range(6)], ["flowers", "fish"]
    write(place / "meta", {"fine_label_names": fine, "coarse_label_names": coarse})
    for seed, (name, count) in enumerate((("train", 420), ("test", 30))):
        labels = [row % 6 for row in range(count)]
        content = {"data": images(count, seed), "fine_labels": labels, "coarse_labels": [label // 3 for label in labels]}
        write(place / name, content)
    return folder
