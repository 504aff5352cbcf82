// undici's request through its ProxyAgent; takes the proxy from the program.

import { ProxyAgent, request } from "undici";
import * as show from "./show.mjs";

const dispatcher = new ProxyAgent(process.env.HTTPS_PROXY);

try {
  const answer = await request(process.argv[2], { dispatcher });
  show.response({
    status: answer.statusCode,
    statusText: answer.statusText,
    proxyStatus: answer.headers["proxy-status"],
    body: Buffer.from(await answer.body.arrayBuffer()),
  });
} catch (error) {
  show.error(error);
} finally {
  await dispatcher.close();
}
