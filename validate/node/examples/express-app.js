// A service whose orders can be read with a token only.
//
// usage: node express-app.js ISSUER AUDIENCE PORT

import { Validator } from 'chancery'
import { bearer } from 'chancery/express'
import express from 'express'

const [issuer, audience, port] = process.argv.slice(2)
const validator = new Validator({ issuer, audience })
// The detail is for whoever runs the service, never for whoever sent the token.
const onRejection = (rejection, req) =>
  console.error(`${req.method} ${req.url}: ${rejection.message}`)

const app = express()
app.get('/orders', bearer(validator, { scope: 'read', onRejection }), (req, res) => {
  res.json({ client: req.token.claims.client_id, orders: [] })
})
app.listen(Number(port), '127.0.0.1', () => console.log(`http://127.0.0.1:${port}/orders`))
