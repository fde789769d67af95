"""Random numbers that nobody seeded. Pure.

A draw from a global generator is seeded if the file, or one that imports it, seeds that generator. An
estimator of scikit-learn without random_state draws from NumPy's global generator, so it is seeded by that.
The tables hold every estimator and function of scikit-learn 1.9 that takes random_state.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from engine.reproduce.linting.finding import Finding
from engine.reproduce.linting.source import Call, Source

DRAWS = frozenset({
    "AdaBoostClassifier", "AdaBoostRegressor", "AffinityPropagation", "BaggingClassifier",
    "BaggingRegressor", "BayesianGaussianMixture", "BernoulliRBM", "BisectingKMeans",
    "DecisionTreeClassifier", "DecisionTreeRegressor", "DictionaryLearning", "EllipticEnvelope",
    "ExtraTreeClassifier", "ExtraTreeRegressor", "ExtraTreesClassifier", "ExtraTreesRegressor", "FastICA",
    "GaussianMixture", "GaussianRandomProjection", "GradientBoostingClassifier",
    "GradientBoostingRegressor", "IsolationForest", "KMeans", "LatentDirichletAllocation",
    "LocallyLinearEmbedding", "MDS", "MLPClassifier", "MLPRegressor", "MinCovDet",
    "MiniBatchDictionaryLearning", "MiniBatchKMeans", "MiniBatchSparsePCA", "Nystroem",
    "OutputCodeClassifier", "PatchExtractor", "PolynomialCountSketch", "QuantileTransformer",
    "RANSACRegressor", "RBFSampler", "RandomForestClassifier", "RandomForestRegressor",
    "RandomTreesEmbedding", "RandomizedSearchCV", "HalvingGridSearchCV", "HalvingRandomSearchCV",
    "SkewedChi2Sampler", "SparsePCA", "SparseRandomProjection", "SpectralBiclustering",
    "SpectralClustering", "SpectralCoclustering", "SpectralEmbedding", "TSNE", "TheilSenRegressor",
    "TruncatedSVD", "GroupShuffleSplit", "ParameterSampler", "RepeatedKFold", "RepeatedStratifiedKFold",
    "ShuffleSplit", "StratifiedShuffleSplit", "affinity_propagation", "dict_learning",
    "dict_learning_online", "extract_patches_2d", "fast_mcd", "fastica", "k_means", "kmeans_plusplus",
    "locally_linear_embedding", "make_biclusters", "make_blobs", "make_checkerboard", "make_circles",
    "make_classification", "make_friedman1", "make_friedman2", "make_friedman3", "make_gaussian_quantiles",
    "make_hastie_10_2", "make_low_rank_matrix", "make_moons", "make_multilabel_classification",
    "make_regression", "make_s_curve", "make_sparse_coded_signal", "make_sparse_spd_matrix",
    "make_sparse_uncorrelated", "make_spd_matrix", "make_swiss_roll", "mutual_info_classif",
    "mutual_info_regression", "permutation_importance", "quantile_transform", "randomized_range_finder",
    "randomized_svd", "resample", "shuffle", "smacof", "spectral_clustering", "spectral_embedding", "SMOTE",
    "ADASYN", "BorderlineSMOTE", "SVMSMOTE", "RandomOverSampler", "RandomUnderSampler",
})
# These stop drawing when the keyword has the value.
UNLESS: dict[str, tuple[str, object]] = {
    "train_test_split": ("shuffle", False),
    "HistGradientBoostingClassifier": ("early_stopping", False),
    "HistGradientBoostingRegressor": ("early_stopping", False),
    **dict.fromkeys(("PassiveAggressiveClassifier", "PassiveAggressiveRegressor", "SGDClassifier",
                     "SGDOneClassSVM", "SGDRegressor"), ("shuffle", False)),
}
# These draw only when the keyword has one of the values; an empty list means any value but none, 0, False.
WHEN: dict[str, tuple[str, tuple[object, ...]]] = {
    **dict.fromkeys(("KFold", "GroupKFold", "StratifiedKFold", "StratifiedGroupKFold", "learning_curve",
                     "fetch_covtype", "fetch_kddcup99", "fetch_rcv1"), ("shuffle", (True,))),
    **dict.fromkeys(("SVC", "NuSVC"), ("probability", (True,))),
    **dict.fromkeys(("LinearSVC", "LinearSVR"), ("dual", (True,))),
    **dict.fromkeys(("LogisticRegression", "LogisticRegressionCV"), ("solver", ("sag", "saga", "liblinear"))),
    **dict.fromkeys(("Ridge", "RidgeClassifier", "ridge_regression"), ("solver", ("sag", "saga"))),
    **dict.fromkeys(("ElasticNet", "ElasticNetCV", "Lasso", "LassoCV", "MultiTaskElasticNet",
                     "MultiTaskElasticNetCV", "MultiTaskLasso", "MultiTaskLassoCV"),
                    ("selection", ("random",))),
    "PCA": ("svd_solver", ("arpack", "randomized")),
    "KernelPCA": ("eigen_solver", ("arpack", "randomized")),
    **dict.fromkeys(("GaussianProcessClassifier", "GaussianProcessRegressor"), ("n_restarts_optimizer", ())),
    **dict.fromkeys(("NMF", "MiniBatchNMF", "non_negative_factorization", "NeighborhoodComponentsAnalysis"),
                    ("init", ("random",))),
    "DummyClassifier": ("strategy", ("stratified", "uniform")),
    "IterativeImputer": ("sample_posterior", (True,)),
    **dict.fromkeys(("ClassifierChain", "RegressorChain"), ("order", ("random",))),
    **dict.fromkeys(("Lars", "LassoLars"), ("jitter", ())),
    "silhouette_score": ("sample_size", ()),
}
# Seeded unless told otherwise, or drawing only above 200,000 rows, or where to seed is deprecated.
SETTLED = frozenset({"FactorAnalysis", "Perceptron", "estimate_bandwidth", "fetch_20newsgroups", "load_files",
                     "fetch_olivetti_faces", "permutation_test_score", "KBinsDiscretizer", "TargetEncoder",
                     "TunedThresholdClassifierCV", "check_cv"})

# With a random_state of their own they give one to each estimator inside.
SEED_THE_INNER = frozenset({
    "AdaBoostClassifier", "AdaBoostRegressor", "BaggingClassifier", "BaggingRegressor",
    "BalancedBaggingClassifier", "EasyEnsembleClassifier", "RUSBoostClassifier", "ClassifierChain",
    "RegressorChain", "OutputCodeClassifier"})

BIT_GENERATORS = frozenset({"default_rng", "RandomState", "SeedSequence", "PCG64", "PCG64DXSM", "MT19937",
                            "Philox", "SFC64"})
NUMPY_QUIET = frozenset({"seed", "get_state", "set_state", "Generator", "BitGenerator", "get_bit_generator",
                         "set_bit_generator"})
RANDOM_QUIET = frozenset({"seed", "getstate", "setstate", "Random", "SystemRandom"})
TORCH = frozenset({"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "normal", "bernoulli",
                   "multinomial", "poisson"})
TORCH_LAYERS = frozenset({"Linear", "Bilinear", "Conv1d", "Conv2d", "Conv3d", "ConvTranspose2d", "Embedding",
                          "LSTM", "GRU", "RNN", "Transformer", "TransformerEncoderLayer",
                          "MultiheadAttention", "Dropout"})
KERAS_LAYERS = frozenset({"Dense", "Conv1D", "Conv2D", "Conv3D", "Embedding", "LSTM", "GRU", "Dropout"})


@dataclass(frozen=True)
class Generator:
    """A global generator: its library's name, and the call that seeds it."""

    key: str
    name: str
    seeding: str


GENERATORS = {
    "random": Generator("random", "the generator of `random`", "random.seed(SEED)"),
    "numpy": Generator("numpy", "NumPy's global generator",
                       "rng = numpy.random.default_rng(SEED), and draw from rng"),
    "torch": Generator("torch", "PyTorch's global generator", "torch.manual_seed(SEED)"),
    "tensorflow": Generator("tensorflow", "TensorFlow's global generator",
                            "keras.utils.set_random_seed(SEED)"),
}
SEEDING: dict[str, tuple[str, ...]] = {
    "random.seed": ("random",), "numpy.random.seed": ("numpy",), "torch.manual_seed": ("torch",),
    "torch.random.manual_seed": ("torch",), "tensorflow.random.set_seed": ("tensorflow",),
    "tensorflow.set_random_seed": ("tensorflow",),
    "keras.utils.set_random_seed": ("random", "numpy", "tensorflow", "torch"),
    "tensorflow.keras.utils.set_random_seed": ("random", "numpy", "tensorflow"),
    "transformers.set_seed": ("random", "numpy", "torch", "tensorflow"),
    "accelerate.utils.set_seed": ("random", "numpy", "torch"),
    "engine.reproduce.seeds.apply": ("random", "numpy", "torch", "tensorflow"),
    "lightning.seed_everything": ("random", "numpy", "torch"),
    "lightning.pytorch.seed_everything": ("random", "numpy", "torch"),
    "pytorch_lightning.seed_everything": ("random", "numpy", "torch"),
}
WHY = "Each run draws other numbers, so a second training gives another model."


def seeds(source: Source) -> frozenset[str]:
    """The global generators that the file seeds with a value."""
    return frozenset(key for call in source.calls if _has_seed(call) for key in SEEDING.get(call.name, ()))


def find(source: Source, seeded: frozenset[str]) -> Iterator[tuple[ast.AST, Finding]]:
    """Every unseeded draw. `seeded`: the global generators that are seeded when this file's code runs."""
    for call in source.calls:
        found = _constructed(source, call) or _estimator(source, call, seeded) \
            or _sampled(source, call, seeded) or _global(source, call, seeded)
        if found is not None:
            yield call.node, found


def _constructed(source: Source, call: Call) -> Finding | None:
    """A generator made without a seed, or seeded with nothing."""
    module, _, last = call.name.rpartition(".")
    made = (module.startswith("numpy.random") and last in BIT_GENERATORS) or call.name == "random.Random"
    if call.name == "random.SystemRandom" and source.imported(call.node.func):
        return _finding(source, call, "random.SystemRandom() cannot be seeded", "Use random.Random(SEED).")
    if not (made or call.name in SEEDING) or not source.imported(call.node.func) or _has_seed(call):
        return None
    return _finding(source, call, f"{_shown(call)}() without a seed takes one from the operating system",
                    f"Give it one: {_shown(call)}(SEED), and record the seed in the project's settings.")


def _estimator(source: Source, call: Call, seeded: frozenset[str]) -> Finding | None:
    top, last = call.name.partition(".")[0], call.last
    if top not in ("sklearn", "imblearn") or call.spread or call.given("random_state") is not None:
        return None
    keyword, values = WHEN.get(last, ("", ()))
    if last in UNLESS:
        stops, value = UNLESS[last]
        draws = not _is(call.given(stops), (value,))
    elif keyword:
        value_given = call.given(keyword)
        draws = value_given is not None and (
            _is(value_given, values) if values else not _is(value_given, (0, False)))
    else:
        draws = last in DRAWS
    if not draws or "numpy" in seeded or _inside_seeded(source, call):
        return None
    return _finding(source, call, f"{last} has no random_state", "Give it random_state=SEED.", last)


def _inside_seeded(source: Source, call: Call) -> bool:
    parent = source.parents.get(call.node)
    while parent is not None and not isinstance(parent, ast.stmt):
        if isinstance(parent, ast.Call) and source.name_of(parent.func).rpartition(".")[2] in SEED_THE_INNER:
            return Call(parent, "").given("random_state") is not None
        parent = source.parents.get(parent)
    return False


def _sampled(source: Source, call: Call, seeded: frozenset[str]) -> Finding | None:
    """`frame.sample(frac=…)` of pandas or polars, and draws of SciPy's distributions."""
    if not isinstance(call.node.func, ast.Attribute) or call.spread or "numpy" in seeded:
        return None
    tops = {name.partition(".")[0] for name in source.modules}
    if call.last == "sample" and not source.imported(call.node.func) and tops & {"pandas", "polars"} \
            and any(call.given(one) for one in ("n", "frac", "fraction")) \
            and call.given("random_state") is None and call.given("seed") is None:
        keyword = "seed" if "polars" in tops and "pandas" not in tops else "random_state"
        return _finding(source, call, "rows are sampled without a seed", f"Give it {keyword}=SEED.", "sample")
    if call.last == "rvs" and call.name.startswith("scipy.stats.") and call.given("random_state") is None:
        return _finding(source, call, "rvs has no random_state", "Give it random_state=SEED.", "rvs")
    return None


def _global(source: Source, call: Call, seeded: frozenset[str]) -> Finding | None:
    """A draw from a library's global generator."""
    key = _generator(call)
    if key is None or key in seeded or not source.imported(call.node.func):
        return None
    generator = GENERATORS[key]
    return _finding(source, call, f"{_shown(call)} draws from {generator.name}, which nothing seeds",
                    f"Before it: {generator.seeding}.", key)


def _generator(call: Call) -> str | None:
    module, _, last = call.name.rpartition(".")
    if module == "numpy.random" and last not in NUMPY_QUIET | BIT_GENERATORS:
        return "numpy"
    if module == "random" and last not in RANDOM_QUIET:
        return "random"
    if (module == "torch" and last in TORCH) or (module == "torch.nn" and last in TORCH_LAYERS) \
            or call.name == "torch.utils.data.random_split":
        return "torch" if call.given("generator") is None else None
    if call.name == "torch.utils.data.DataLoader" and _is(call.given("shuffle"), (True,)):
        return "torch" if call.given("generator") is None else None
    if module == "tensorflow.random" and last in ("normal", "uniform", "shuffle", "truncated_normal"):
        return "tensorflow" if call.given("seed") is None else None
    if module in ("keras.layers", "tensorflow.keras.layers") and last in KERAS_LAYERS:
        return "tensorflow"
    return None


def _has_seed(call: Call) -> bool:
    if call.spread:
        return True
    values = [*call.node.args, *(one.value for one in call.node.keywords)]
    return bool(values) and not (isinstance(values[0], ast.Constant) and values[0].value is None)


def _is(value: ast.expr | None, values: tuple[object, ...]) -> bool:
    return isinstance(value, ast.Constant) and any(
        type(value.value) is type(one) and value.value == one for one in values)


def _shown(call: Call) -> str:
    return ast.unparse(call.node.func)


def _finding(source: Source, call: Call, text: str, hint: str, group: str = "") -> Finding:
    return Finding("randomness", source.path, call.node.lineno, text, WHY, hint, group=group)
