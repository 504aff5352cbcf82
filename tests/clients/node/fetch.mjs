// Node's own fetch; takes the proxy variables only with NODE_USE_ENV_PROXY=1.

import * as show from "./show.mjs";

try {
  const answer = await fetch(process.argv[2]);
  show.response({
    status: answer.status,
    statusText: answer.statusText,
    proxyStatus: answer.headers.get("proxy-status"),
    body: Buffer.from(await answer.arrayBuffer()),
  });
} catch (error) {
  show.error(error);
}
