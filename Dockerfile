# The daemon `ibex run` with its dashboard on port 8642. Settings come from IBEX_* variables, or from a file
# mounted as /ibex/ibex.yaml. Beyond loopback a token is asked for: set IBEX_HTTP_TOKEN. Other commands work as
# well, such as `docker run --rm --init .. status`; only `demo` needs packages that are left out here.

FROM node:22-bookworm-slim AS build
WORKDIR /ibex
COPY package.json package-lock.json ./
# The script `prepare` would build src/, which is not here yet.
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src src
COPY scripts/build.mjs scripts/build.mjs
RUN npm run build

FROM node:22-bookworm-slim AS assembly
WORKDIR /ibex
COPY package.json package-lock.json LICENSE ./
# The optional packages are PostgreSQL servers for the demo, and the scripts would call for the compiler.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund
COPY bin bin
COPY triggers triggers
COPY --from=build /ibex/dist dist
# A checkout made under a strict umask would be readable by root alone.
RUN chmod -R a+rX .

FROM node:22-bookworm-slim
ENV NODE_ENV=production
WORKDIR /ibex
COPY --from=assembly /ibex/node_modules node_modules
COPY --from=assembly /ibex/package.json /ibex/LICENSE ./
COPY --from=assembly /ibex/bin bin
COPY --from=assembly /ibex/triggers triggers
COPY --from=assembly /ibex/dist dist
USER node
EXPOSE 8642
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8642/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
ENTRYPOINT ["node", "bin/ibex.js"]
CMD ["run", "--listen", "0.0.0.0:8642"]
