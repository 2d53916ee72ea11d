# A machine of a run; what run.sh takes follows the image's name: docs/machines.md, "Docker".
FROM python:3.11-slim
WORKDIR /skippipe
# What is installed does not change with the sources, so that these come later.
# No driver is there while an image is built: --build-arg SKIPPIPE_TORCH=cuda for one with CUDA.
ARG SKIPPIPE_TORCH
COPY setup.sh requirements.txt pyproject.toml README.md ./
RUN mkdir skippipe && touch skippipe/__init__.py && ./setup.sh
COPY . .
RUN useradd --create-home trainer && mkdir runs && chown trainer runs
USER trainer
ENTRYPOINT ["./run.sh"]
