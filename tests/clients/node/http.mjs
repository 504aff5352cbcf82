// Node's http and https modules, which most older libraries are built on; take the proxy variables only
// with NODE_USE_ENV_PROXY=1.

import { once } from "node:events";
import http from "node:http";
import https from "node:https";
import { buffer } from "node:stream/consumers";
import * as show from "./show.mjs";

const url = process.argv[2];

try {
  const [answer] = await once((url.startsWith("https:") ? https : http).get(url), "response");
  show.response({
    status: answer.statusCode,
    statusText: answer.statusMessage,
    proxyStatus: answer.headers["proxy-status"],
    body: await buffer(answer),
  });
} catch (error) {
  show.error(error);
}
