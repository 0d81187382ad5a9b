# docker build -t boardlaw .                     the book and its tests
# docker build -t boardlaw-mohex --target mohex .   the same with the Hex engine MoHex 2.0
#
# docker run --name book boardlaw                runs both commands: make book, then make test
# docker cp book:/home/boardlaw/boardlaw/_build/html .
#
# On Linux, pip's torch brings CUDA along, and the image takes about 6 GB. With --build-arg
# PIP_EXTRA_INDEX_URL set to the index of torch's CPU builds, which pytorch.org names, it takes 2.2 GB.

FROM python:3.11-slim-bookworm AS boardlaw
RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 boardlaw \
    && install -d -o boardlaw -g boardlaw /home/boardlaw/boardlaw
USER 1000
WORKDIR /home/boardlaw/boardlaw
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1
# The dependencies come first, so that a change in the sources does not install them again.
COPY --chown=boardlaw requirements.txt constraints.txt ./
RUN python -m venv .venv \
    && .venv/bin/python -m pip install -r requirements.txt -c constraints.txt
COPY --chown=boardlaw . .
RUN make install
CMD ["make", "book", "test"]

# Optional, and built by no test: the engine, which boardlaw.arena.mohex.MoHexAgent() starts as
# `mohex`. It needs a Boost older than 1.85, and looks for its data in the folder where it was
# compiled. So both stages use one Debian release and one folder.
FROM python:3.11-slim-bookworm AS mohex-build
RUN apt-get update \
    && apt-get install -y --no-install-recommends cmake g++ git make ca-certificates libdb-dev \
       libboost-date-time-dev libboost-filesystem-dev libboost-program-options-dev \
       libboost-system-dev libboost-thread-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/benzene
RUN git clone https://github.com/cgao3/benzene-vanilla-cmake . \
    && git checkout f888938bc7ab051a04034a9e19a31399a31d2429 \
    && cmake -S . -B build \
    && make -C build -j"$(nproc)" mohex \
    && install -D build/src/mohex/mohex bin/mohex

FROM boardlaw AS mohex
USER 0
RUN apt-get update \
    && apt-get install -y --no-install-recommends libdb5.3 libboost-date-time1.74.0 \
       libboost-filesystem1.74.0 libboost-program-options1.74.0 libboost-system1.74.0 \
       libboost-thread1.74.0 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=mohex-build /opt/benzene/share /opt/benzene/share
COPY --from=mohex-build /opt/benzene/bin/mohex /usr/local/bin/mohex
USER 1000

# The last stage is what `docker build .` makes: without the engine.
FROM boardlaw
