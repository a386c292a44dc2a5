// `web`, a service that needs only Node's standard library: a page that shows an order.
//
// `waypost up` sets PORT, and ORDERS_URL, the URL of `orders`.

import http from "node:http";

const port = Number(process.env.PORT);
const orders = process.env.ORDERS_URL ?? "http://localhost:4100";

async function page(number) {
  const response = await fetch(`${orders}/${number}`, { signal: AbortSignal.timeout(5000) });
  if (response.status === 404) return { status: 404, body: "<h1>No such order</h1>\n" };
  if (!response.ok) return { status: 502, body: `<h1>The orders responded with ${response.status}</h1>\n` };
  const { order, items, total } = await response.json();
  const price = total === null ? "no prices today" : `${total} euros`;
  return { status: 200, body: `<h1>Order ${order}</h1><p>${items.join(", ")}: ${price}</p>\n` };
}

const server = http.createServer(async (request, response) => {
  let answer;
  if (request.url === "/health") {
    answer = { status: 200, body: "healthy\n" };
  } else {
    const number = encodeURIComponent(request.url.slice(1) || "8821");
    answer = await page(number).catch((error) => ({ status: 502, body: `<h1>${error.name}</h1>\n` }));
    console.log(request.method, request.url, answer.status);
  }
  response.writeHead(answer.status, { "content-type": "text/html; charset=utf-8" });
  response.end(answer.body);
});

server.listen(port, "127.0.0.1", () => console.log(`listening on port ${port}`));
// `waypost` removes the instance from the registry and then sends SIGTERM.
process.on("SIGTERM", () => server.close(() => process.exit(0)));
