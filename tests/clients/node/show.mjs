// How each Node client says what it got: see the header of ../run.

/** An answer came: the page if it is one, else its status line and what came with it. */
export function response({ status, statusText, proxyStatus, body }) {
  if (status === 200) {
    process.stdout.write("body: ");
    process.stdout.write(body);
    return;
  }
  console.log(`error: ${[status, statusText].filter(Boolean).join(" ")}`);
  if (proxyStatus) console.log(`proxy-status: ${proxyStatus}`);
  console.log(`body: ${body}`);
}

/** None came: the error and its causes, as Node prints an uncaught error without the stacks. */
export function error(error) {
  const chain = [];
  for (let link = error; link; link = link.cause) chain.push(String(link));
  console.log(`error: ${chain.join(" [cause]: ")}`);
}
