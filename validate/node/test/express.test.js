// The middleware, in Express itself.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, request } from 'node:http'
import { after, before, test } from 'node:test'
import { Rejection, Validator } from 'chancery'
import { bearer } from 'chancery/express'
import express from 'express'
import { Issuer } from './issuer.js'

let issuer
let server
let url
const rejections = []
// What a validator does is not this file's question; what the middleware makes of it is.
const failing = (error) => ({ validate: () => Promise.reject(error) })

before(async () => {
  issuer = await Issuer.make()
  const validator = new Validator(issuer.settings())
  const onRejection = (rejection, req) => rejections.push([rejection.code, req.url])
  const app = express()
  const show = (req, res) => res.json({ sub: req.token.claims.sub, kid: req.token.kid })
  app.get('/any', bearer(validator, { onRejection }), show)
  app.get('/read', bearer(validator, { scope: 'read' }), show)
  app.get('/both', bearer(validator, { scope: ['read', 'write'], realm: 'orders' }), show)
  const lenient = new Validator({ ...issuer.settings(), profile: 'oidc' })
  app.get('/lenient', bearer(lenient, { scope: 'admin' }), show)
  app.get('/admin', bearer(validator, { scope: 'read admin' }), show)
  const later = new Rejection('keys_unavailable', 'http://secret.internal is down')
  app.get('/later', bearer(failing(later)), show)
  app.get('/much-later', bearer(failing(later), { retryAfter: 60 }), show)
  app.get('/broken', bearer(failing(new Error('a fault of the program'))), show)
  app.get('/thrown', bearer(validator), () => {
    throw new Error('a fault of the handler')
  })
  app.use((error, req, res, next) => res.status(500).json({ fault: error.message }))
  server = createServer(app).listen(0, '127.0.0.1')
  await once(server, 'listening')
  url = `http://127.0.0.1:${server.address().port}`
})
after(() => server.close())

async function get(path, authorization) {
  const headers = authorization === undefined ? {} : { authorization }
  const answer = await fetch(url + path, { headers })
  const body = await answer.json()
  return { status: answer.status, body, headers: answer.headers }
}

async function challenged(path, authorization, status, challenge, error) {
  const answer = await get(path, authorization)
  assert.equal(answer.status, status)
  assert.equal(answer.headers.get('www-authenticate'), challenge)
  assert.equal(answer.headers.get('cache-control'), 'no-store')
  assert.deepEqual(answer.body, { error })
}

test("a good token is let through and is the request's", async () => {
  const token = await issuer.token()
  for (const path of ['/any', '/read', '/both']) {
    for (const scheme of ['Bearer', 'bearer', 'BEARER', 'Bearer ']) {
      const { status, body } = await get(path, `${scheme} ${token}`)
      assert.deepEqual([status, body], [200, { sub: 'user:4217', kid: issuer.kid }])
    }
  }
})

test('no token is 401 without an error code', async () => {
  await challenged('/any', undefined, 401, 'Bearer', 'unauthorized')
  await challenged('/both', undefined, 401, 'Bearer realm="orders"', 'unauthorized')
  await challenged('/any', 'Basic YTpi', 401, 'Bearer', 'unauthorized')
  await challenged('/any', '', 401, 'Bearer', 'unauthorized')
})

test('what cannot be told is 400', async () => {
  const token = await issuer.token()
  const challenge = 'Bearer error="invalid_request"'
  for (const header of ['Bearer', 'Bearer  ', `Bearer ${token} ${token}`]) {
    await challenged('/any', header, 400, challenge, 'invalid_request')
  }
})

test('two tokens are 400, not the first of them', async () => {
  const token = await issuer.token()
  const asked = request(`${url}/any`)
  asked.setHeader('Authorization', [`Bearer ${token}`, 'Bearer other'])
  asked.end()
  const [answer] = await once(asked, 'response')
  answer.resume()
  assert.equal(answer.statusCode, 400)
})

test('a bad token is 401 `invalid_token`, and only the operator learns why', async () => {
  rejections.length = 0
  const challenge = 'Bearer error="invalid_token"'
  await challenged('/any', 'Bearer a.b.c', 401, challenge, 'invalid_token')
  await challenged(
    '/any',
    `Bearer ${await issuer.token({ aud: 'x' })}`,
    401,
    challenge,
    'invalid_token',
  )
  const inRealm = 'Bearer realm="orders", error="invalid_token"'
  await challenged('/both', 'Bearer a.b.c', 401, inRealm, 'invalid_token')
  assert.deepEqual(rejections, [
    ['malformed_token', '/any'],
    ['wrong_audience', '/any'],
  ])
})

test('too little scope is 403, and says which is needed', async () => {
  const read = `Bearer ${await issuer.token({ scope: 'read' })}`
  assert.equal((await get('/read', read)).status, 200)
  const challenge = 'Bearer realm="orders", error="insufficient_scope", scope="read write"'
  await challenged('/both', read, 403, challenge, 'insufficient_scope')
  const admin = 'Bearer error="insufficient_scope", scope="read admin"'
  await challenged('/admin', read, 403, admin, 'insufficient_scope')
  const none = `Bearer ${await issuer.token({ scope: undefined })}`
  assert.equal((await get('/any', none)).status, 200)
  const needed = 'Bearer error="insufficient_scope", scope="read"'
  await challenged('/read', none, 403, needed, 'insufficient_scope')
  const alike = `Bearer ${await issuer.token({ scope: 'reader read-all' })}`
  await challenged('/read', alike, 403, needed, 'insufficient_scope')
})

test('a scope that is none grants nothing', async () => {
  const good = `Bearer ${await issuer.token({ scope: 'read admin' })}`
  assert.equal((await get('/lenient', good)).status, 200)
  for (const scope of ['read  admin', ' admin', 'admin ', 'read" admin', ['admin'], 7]) {
    const odd = `Bearer ${await issuer.token({ scope })}`
    assert.equal((await get('/lenient', odd)).status, 403, JSON.stringify(scope))
  }
})

test('what passes is 503 with a time', async () => {
  for (const [path, after] of [
    ['/later', '5'],
    ['/much-later', '60'],
  ]) {
    const { status, body, headers } = await get(path, 'Bearer a.b.c')
    assert.deepEqual([status, body], [503, { error: 'temporarily_unavailable' }])
    assert.equal(headers.get('retry-after'), after)
    assert.equal(headers.get('www-authenticate'), null)
  }
})

test("a fault is the error handler's", async () => {
  const { status, body } = await get('/broken', 'Bearer a.b.c')
  assert.deepEqual([status, body], [500, { fault: 'a fault of the program' }])
  const thrown = await get('/thrown', `Bearer ${await issuer.token()}`)
  assert.deepEqual([thrown.status, thrown.body], [500, { fault: 'a fault of the handler' }])
})

test('settings that are wrong are told at once', () => {
  const validator = failing()
  const wrong = [
    [undefined],
    [{}],
    [validator, { scope: 'a"b' }],
    [validator, { scope: ['a b'] }],
    [validator, { scope: [1] }],
    [validator, { realm: 'a"b' }],
    [validator, { realm: 7 }],
    [validator, { realm: 'a\nb' }],
    [validator, { retryAfter: -1 }],
    [validator, { retryAfter: '5' }],
    [validator, { onRejection: true }],
  ]
  for (const [one, options] of wrong) assert.throws(() => bearer(one, options), TypeError)
})
