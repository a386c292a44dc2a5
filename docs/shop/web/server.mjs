import http from "node:http";

const orders = process.env.ORDERS_URL;
http.createServer(async (request, response) => {
  const order = await (await fetch(`${orders}/with-price`)).text();
  response.end(`<h1>Your order</h1><p>${order.trim()}</p>\n`);
}).listen(Number(process.env.PORT), "127.0.0.1", () => console.log(`web on ${process.env.PORT}`));
