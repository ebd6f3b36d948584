// An issuer of Chancery's kind for tests: one key, tokens as the signer writes them, and a server.

import { createServer } from 'node:http'
import { once } from 'node:events'
import { SignJWT, calculateJwkThumbprint, exportJWK, generateKeyPair } from 'jose'

export const ISSUER = 'https://id.example/consumers'
export const AUDIENCE = 'https://api.example'
const LOG = 'AAAAAAAAAAAAAAAAAAAAAA'
const HOUR = 3600

export const seconds = () => Math.floor(Date.now() / 1000)

export class Issuer {
  static async make({ issuer = ISSUER, alg = 'ES256' } = {}) {
    const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true })
    const jwk = await exportJWK(publicKey)
    const kid = await calculateJwkThumbprint(jwk)
    const now = seconds()
    const members = { nbf: now - HOUR, signs_until: now + HOUR, exp: now + 3 * HOUR }
    const key = { ...jwk, alg, use: 'sig', kid, issuer, ...members, log: `${LOG}.2` }
    return Object.assign(new Issuer(), { issuer, alg, kid, key, privateKey })
  }

  get jwks() {
    return { keys: [this.key] }
  }

  // A token of twelve claims, as `chancery bench validate` has it.
  token(changes = {}, header = {}) {
    const now = seconds()
    const claims = {
      iss: this.issuer,
      sub: 'user:4217',
      aud: AUDIENCE,
      client_id: 'shop',
      iat: now,
      nbf: now,
      exp: now + HOUR,
      jti: `${LOG}.4711.uH2cWxSAVDqNr0bqcvlyEA`,
      scope: 'read write',
      tier: 'gold',
      roles: ['buyer', 'reviewer'],
      cnf: { jkt: this.kid },
      ...changes,
    }
    return new SignJWT(claims)
      .setProtectedHeader({ alg: this.alg, typ: 'at+jwt', kid: this.kid, ...header })
      .sign(this.privateKey)
  }

  // A token with this text as its payload, which no library would write.
  async signed(payload) {
    const { CompactSign } = await import('jose')
    return new CompactSign(new TextEncoder().encode(payload))
      .setProtectedHeader({ alg: this.alg, typ: 'at+jwt', kid: this.kid })
      .sign(this.privateKey)
  }

  settings(more = {}) {
    return { issuer: this.issuer, audience: AUDIENCE, jwks: this.jwks, ...more }
  }
}

// A publisher: discovery and a key set at a free port of this machine. `broken` makes it answer 500.
export class Publisher {
  static async start() {
    const publisher = new Publisher()
    publisher.requests = []
    publisher.broken = false
    publisher.server = createServer((req, res) => publisher.#answer(req, res))
    publisher.server.listen(0, '127.0.0.1')
    await once(publisher.server, 'listening')
    publisher.url = `http://127.0.0.1:${publisher.server.address().port}`
    publisher.issuer = await Issuer.make({ issuer: publisher.url })
    return publisher
  }

  #answer(req, res) {
    this.requests.push(req.url)
    if (this.broken) return res.writeHead(500).end()
    const jwksUri = `${this.url}/jwks.json`
    const known = {
      '/.well-known/openid-configuration': { issuer: this.url, jwks_uri: jwksUri },
      '/jwks.json': this.issuer.jwks,
    }
    if (!known[req.url]) return res.writeHead(404).end()
    res.setHeader('Content-Type', 'application/json')
    res.end(JSON.stringify(known[req.url]))
  }

  stop() {
    this.server.closeAllConnections()
    this.server.close()
  }
}
