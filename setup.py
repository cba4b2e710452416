"""Installs yt8m_tf: see BUILD.md."""

from pathlib import Path

from setuptools import find_packages, setup

COMMANDS = (
    "download",
    "convert",
    "extract",
    "train",
    "evaluate",
    "export",
    "infer",
    "score",
    "stack",
    "ensemble",
    "pipeline",
    "models",
    "kmeans",
    "strip",
    "report",
    "inspect",
    "sample-data",
    "score-submission",
    "timeline",
)

setup(
    name="yt8m-tf",
    version="0.1.0",
    description="Large-scale multi-label video classification on YouTube-8M with TensorFlow 2 and Keras 3",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11.4,<3.12",
    project_urls={
        "Dataset": "https://research.google.com/youtube8m/",
        "Challenge": "https://www.kaggle.com/c/youtube8m-2018",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: Apache Software License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Multimedia :: Video",
    ],
    package_dir={"yt8m_tf": "yt8m_tf", "yt8m_tf.configs": "configs"},
    packages=[*find_packages(include=["yt8m_tf", "yt8m_tf.*"]), "yt8m_tf.configs"],
    package_data={
        "yt8m_tf.configs": ["**/*.yaml", "*.csv"],
        "yt8m_tf.pretrained": ["*.md", "model/**/*", "examples/*"],
        "yt8m_tf.report": ["*.html"],
    },
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "tensorflow-model-optimization==0.8.1",
        "numpy>=2,<3",
        "h5py>=3.11,<4",
        "lightgbm>=4.7,<5",
        "absl-py>=1.4,<3",
        "tensorboard>=2.20,<3",
        "protobuf",  # in the version that TensorFlow requires
        "PyYAML>=6,<7",
        "tqdm>=4.66,<5",
        "scikit-learn>=1.5,<2",
        "scipy>=1.13,<2",
        "matplotlib>=3.9,<4",
        "filelock>=3.30,<4",
        "google-crc32c>=1.5,<2",
        "tabulate>=0.9,<1",
        "Jinja2>=3.1,<4",
        "requests>=2.32,<3",
        "urllib3>=2,<3",  # a dependency of requests
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
        "cluster": ["lightgbm[dask]>=4.7,<5"],
        "video": ["av>=15,<19"],
        "parquet": ["pyarrow>=18"],
        "dev": [
            "lightgbm[dask]>=4.7,<5",
            "av>=15,<19",
            "pyarrow>=18",
            "nbclient>=0.10",
            "ipykernel>=6",
            "pytest>=8,<10",
            "pytest-xdist>=3.6",
            "ruff>=0.9",
            "mypy>=1.14",
            "axe-core-python",  # accessibility rules, against which pages are tested
            "types-PyYAML",
            "types-requests",
            "types-tabulate",
            "types-tqdm",
        ],
    },
    entry_points={"console_scripts": [f"yt8m-{name} = yt8m_tf.bin.{name.replace('-', '_')}:run" for name in COMMANDS]},
)
